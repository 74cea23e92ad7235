"""What is asked for on which connection, within the venues' limits."""

import json

import pytest

from core.config import Capture, Hosts
from core.errors import ConfigError
from core.servers import local_hosts
from ingest.plans import plans
from ingest.venues import Plan, venue_of


def asked(plan: Plan) -> list[str]:
    """All streams or topics of a plan."""
    return [name for text in plan.requests for name in json.loads(text).get("params") or json.loads(text)["args"]]


def test_usd_m_streams_are_split_as_the_venue_splits_them() -> None:
    public, market = plans(["binance_um:BTCUSDT"], Capture(), Hosts())
    assert public.url == "wss://fstream.binance.com/public/stream"
    assert json.loads(public.requests[0])["params"] == ["btcusdt@bookTicker", "btcusdt@depth@500ms"]
    assert public.depth_urls == (("BTCUSDT", "https://fapi.binance.com/fapi/v1/depth?symbol=BTCUSDT&limit=1000"),)
    assert market.url == "wss://fstream.binance.com/market/stream"
    assert json.loads(market.requests[0])["params"] == [
        "btcusdt@aggTrade",
        "btcusdt@markPrice@1s",
        "btcusdt@forceOrder",
    ]


def test_without_depth_no_snapshot_is_asked_for() -> None:
    public, _ = plans(["binance_um:BTCUSDT"], Capture(depth="off"), Hosts())
    assert public.depth_urls == ()
    (bybit,) = plans(["bybit:BTCUSDT"], Capture(depth="off"), Hosts())
    assert not any("orderbook.50" in request for request in bybit.requests)


NAMES = [f"S{n}USDT" for n in range(700)]


def test_seven_hundred_symbols_stay_within_the_venues_limits() -> None:
    capture = Capture(klines=("1m", "1h"), symbols_per_connection=400)
    venues = ("binance_um", "binance", "binance_cm", "bybit", "bybit_spot", "bybit_inverse")
    made = plans([f"{venue}:{name}" for venue in venues for name in NAMES], capture, Hosts())
    fed: dict[str, set[tuple[str, str]]] = {venue: set() for venue in venues}
    for plan in made:
        streams = asked(plan)
        assert len(streams) == len(set(streams)) <= 1_024
        is_bybit = "bybit" in plan.url
        assert not is_bybit or len(json.dumps(streams, separators=(",", ":"))) <= 21_000
        most = 10 if plan.url.endswith("/spot") else 100
        assert all(len(asked(one)) <= most for one in [Plan(plan.url, (text,), (), 1.0) for text in plan.requests])
        assert (plan.lifetime_s is None) is is_bybit
        assert bool(plan.ping) is is_bybit
        fed[venue_of(plan.url)].update(plan.feeds)
    assert all({symbol for symbol, _ in feeds} == set(NAMES) for feeds in fed.values())
    tables = {venue: {table for _, table in feeds} for venue, feeds in fed.items()}
    spot = {"top_of_book", "trades", "book_deltas", "klines"}
    assert tables["binance"] == tables["bybit_spot"] == spot
    assert tables["binance_um"] == tables["binance_cm"] == tables["bybit"] == spot | {"mark_prices", "liquidations"}


def test_symbols_are_dealt_out_so_that_the_liquid_ones_are_apart() -> None:
    made = plans([f"bybit:{name}" for name in NAMES[:200]], Capture(), Hosts())
    groups = [{symbol for symbol, _ in plan.feeds} for plan in made]
    assert [len(group) for group in groups] == [50] * 4
    assert [group & {"S0USDT", "S1USDT", "S2USDT", "S3USDT"} for group in groups] == [{f"S{n}USDT"} for n in range(4)]


@pytest.mark.parametrize(
    ("venue", "depth", "partial", "stream"),
    [
        ("binance_um", "100ms", 0, "a@depth@100ms"),
        ("binance_um", "250ms", 0, "a@depth"),
        ("binance_cm", "1000ms", 0, "a@depth@500ms"),
        ("binance", "250ms", 0, "a@depth@100ms"),
        ("binance", "1000ms", 0, "a@depth"),
        ("binance", "100ms", 20, "a@depth20@100ms"),
        ("bybit", "100ms", 0, "orderbook.1000.A"),
    ],
)
def test_depth_comes_at_the_nearest_speed_that_a_venue_has(venue: str, depth, partial, stream: str) -> None:
    capture = Capture(depth=depth, partial_depth=partial, bybit_depth=1000)
    made = plans([f"{venue}:A"], capture, Hosts())
    assert [name for plan in made for name in asked(plan) if "depth" in name or "orderbook.1000" in name] == [stream]
    assert any(plan.depth_urls for plan in made) is (venue != "bybit" and not partial)


def test_candles_have_the_same_names_on_all_venues() -> None:
    made = plans(["binance_um:A", "bybit:A"], Capture(klines=("1m", "4h", "1d")), Hosts())
    candles = [name for plan in made for name in asked(plan) if "kline" in name]
    assert candles == ["a@kline_1m", "a@kline_4h", "a@kline_1d", "kline.1.A", "kline.240.A", "kline.D.A"]


@pytest.mark.parametrize(("venue", "interval"), [("bybit", "8h"), ("binance_um", "1s"), ("bybit_spot", "3d")])
def test_a_candle_that_a_venue_does_not_have_is_a_configuration_error(venue: str, interval) -> None:
    with pytest.raises(ConfigError, match=rf"no candles of {interval} - at `\$.capture.klines`"):
        plans([f"{venue}:A"], Capture(klines=(interval,)), Hosts())


def test_a_name_that_is_not_ascii_is_encoded_in_urls_and_plain_in_subscriptions() -> None:
    public, market = plans(["binance_um:币安人生USDT"], Capture(), Hosts())
    assert "币安人生usdt@bookTicker" in asked(public)
    assert public.depth_urls[0][1].isascii()
    assert "symbol=%E5%B8%81" in public.depth_urls[0][1]
    assert "{symbol}" in market.trades_url


def test_streams_that_may_be_silent_are_not_watched() -> None:
    public, market = plans(["binance_um:A"], Capture(klines=("1m",), silence_s=10.0), Hosts())
    assert public.silence_s == {("A", "top_of_book"): 10.0, ("A", "book_deltas"): 30.0}
    assert market.silence_s == {("A", "mark_prices"): 10.0, ("A", "trades"): 60.0}


def test_each_venue_has_its_own_connection_and_the_local_server_is_all_of_them() -> None:
    symbols = ["binance:A", "bybit:B", "bybit_spot:C", "binance_cm:D"]
    found = plans(symbols, Capture(), local_hosts("127.0.0.1:9"))
    assert [plan.url for plan in found] == [
        "ws://127.0.0.1:9/stream",
        "ws://127.0.0.1:9/v5/public/linear",
        "ws://127.0.0.1:9/v5/public/spot",
        "ws://127.0.0.1:9/dstream/stream",
    ]
    assert [f"{venue_of(plan.url)}:{plan.feeds[0][0]}" for plan in found] == symbols


def test_a_venue_without_capture_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="okx"):
        plans(["okx:BTC-USDT"], Capture(), Hosts())
