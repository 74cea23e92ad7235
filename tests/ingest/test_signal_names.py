"""What features call a slow series, and where it lies."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.config import Poll
from core.polling import Collector, Field, Provider, Series
from ingest.collectors import Target
from ingest.declarations import built_in
from ingest.signal_names import delivered, names_of, places_of, unknown, without_a_part
from ingest.signals import asset_of

NAMES = {
    ("oi_btc", "5m", "binance_um:BTCUSDT"): ("oi", "oi_5m"),
    ("liq_long_btc_1h", "1h", "bybit:BTCUSDT"): ("liq_long_1h", "liq_long_1h_1h"),
    ("oi_total_eth", "5m", "all:ETH"): ("oi_total", "oi_total_5m"),
    ("oi_total", "5m", "all:ALL"): ("oi_total_all", "oi_total_all_5m"),
    ("supply_usdt", "1d", "llama:ALL"): ("supply_usdt", "supply_usdt_1d"),
    ("oi_oi", "5m", "binance_um:OIUSDT"): ("oi", "oi_5m"),
    ("depth_bid_1pct_usd_btc", "30s", "binance_um:BTCUSDT"): ("depth_bid_1pct_usd", "depth_bid_1pct_usd_30s"),
}


@pytest.mark.parametrize(("stored", "names"), NAMES.items())
def test_names_have_no_asset(stored: tuple[str, str, str], names: tuple[str, str]) -> None:
    assert names_of(*stored) == names


@given(st.sampled_from(sorted(built_in().collectors)), st.sampled_from(["BTCUSDT", "1000PEPEUSDT", "BTCUSDH27"]))
def test_whatever_a_collector_stores_is_delivered_under_its_name(collector: str, symbol: str) -> None:
    one = built_in().collectors[collector]
    target = Target(collector, one, built_in().providers[one.provider], "", symbol)
    for stored in target.series:
        name, with_resolution = names_of(stored, target.resolution, f"{target.exchange}:{symbol}")
        assert f"{name}_{asset_of(symbol)}" == stored
        assert not unknown([name, with_resolution], delivered(Poll()))


def test_own_rows_come_before_totals_and_those_before_what_is_of_no_instrument() -> None:
    own = Collector("llama", "/supply", (Series("supply", (Field("usd"),)),), "date", "1d", symbols=("ALL",))
    known = delivered(Poll(providers={"llama": Provider("https://llama.test")}, collectors={"supply": own}))
    assert places_of("supply", "bybit:BTCUSDT", known) == ("bybit:BTCUSDT", "all:BTC", "all:ALL", "llama:ALL")
    assert places_of("oi", "bybit:BTCUSDT", known) == ("bybit:BTCUSDT", "all:BTC", "all:ALL")
    assert unknown(["supply", "supply_1d", "suply"], known) == ["suply"]
    assert unknown(["supply"], delivered(Poll())) == ["supply"]


def test_a_name_ends_in_a_resolution_or_in_nothing() -> None:
    known = delivered(Poll())
    assert unknown(["oi_5m", "oi", "funding_rate_settlement", "liq_long_1h", "liq_long_1h_1h"], known) == []
    wrong = ["oi_btc", "oi_5x", "oi_0m", "oi_", "oi_m", "liq_long_btc_1h", "oi_settled", "oi_5m_5m"]
    assert unknown(wrong, known) == wrong


def test_a_name_with_the_asset_is_told_without_it() -> None:
    known = delivered(Poll())
    shorter = {name: without_a_part(name, known) for name in ("oi_btc", "oi_btc_5m", "liq_long_btc_1h", "oii")}
    assert shorter == {"oi_btc": "oi", "oi_btc_5m": "oi_5m", "liq_long_btc_1h": "liq_long_1h", "oii": ""}
