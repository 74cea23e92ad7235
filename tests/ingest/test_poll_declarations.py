"""Declarations: a user's own collector without code, and mistakes told with the path of the key."""

from pathlib import Path

import pytest

from core.config import Hosts, Poll, load
from core.errors import ConfigError
from core.units import NS_PER_MINUTE
from ingest.collectors import Target
from ingest.declarations import built_in, declared, targets

MINE = """
symbols = ["binance_um:BTCUSDT"]

[poll.providers.llama]
host = "https://stablecoins.llama.fi"

[poll.collectors.usdt_supply]
provider = "llama"
path = "/stablecoincharts/all"
params = { stablecoin = 1 }
symbols = ["ALL"]
time = "date"
time_unit = "s"
resolution = "1d"
every = "1h"
series = [{ name = "stablecoin_supply_usdt", fields = [{ path = "totalCirculating.peggedUSD" }], above = 0 }]

[poll.collectors.my_interest]
provider = "binance_um"
path = "/fapi/v1/openInterest"
params = { symbol = "{symbol}" }
time = "time"
resolution = "15m"
every = "15m"
series = [{ name = "my_oi_{asset}", fields = [{ path = "openInterest" }] }]
"""


def poll_of(text: str, tmp_path: Path) -> Poll:
    (tmp_path / "pipeline.toml").write_text(text)
    return load(root=tmp_path).poll


def chosen(poll: Poll, *symbols: str) -> dict[str, Target]:
    return {target.key: target for target in targets(declared(poll), symbols, Hosts())}


def test_a_users_collector_needs_no_code(tmp_path: Path) -> None:
    found = chosen(poll_of(MINE, tmp_path), "binance_um:BTCUSDT")
    supply, interest = found["usdt_supply/ALL"], found["my_interest/BTCUSDT"]
    assert supply.url() == "https://stablecoins.llama.fi/stablecoincharts/all?stablecoin=1"
    assert (supply.exchange, list(supply.series)) == ("llama", ["stablecoin_supply_usdt"])
    assert interest.url() == "https://fapi.binance.com/fapi/v1/openInterest?symbol=BTCUSDT"
    assert (interest.every_ns, list(interest.series)) == (15 * NS_PER_MINUTE, ["my_oi_btc"])


def test_a_name_of_ours_is_replaced_and_only_keeps_those_named(tmp_path: Path) -> None:
    text = MINE.replace("my_interest", "binance_um_open_interest")
    found = chosen(poll_of(text, tmp_path), "binance_um:BTCUSDT")
    assert list(found["binance_um_open_interest/BTCUSDT"].series) == ["my_oi_btc"]
    only = poll_of(MINE.replace("[poll.prov", 'poll.only = ["usdt_supply"]\n[poll.prov', 1), tmp_path)
    assert list(chosen(only, "binance_um:BTCUSDT")) == ["usdt_supply/ALL"]


def test_each_venue_is_asked_for_its_own_symbols() -> None:
    found = chosen(Poll(), "binance_um:ETHUSDT", "bybit:BTCUSDT", "bybit_inverse:BTCUSD", "binance:BTCUSDT")
    assert {(target.exchange, target.symbol) for target in found.values()} == {
        ("binance_um", "ETHUSDT"),
        ("bybit", "BTCUSDT"),
        ("bybit_inverse", "BTCUSD"),
    }


@pytest.mark.parametrize(
    ("old", "new", "path"),
    [
        ('provider = "llama"', 'provider = "lama"', "$.poll.collectors.usdt_supply.provider"),
        ('"{symbol}"', '"{symbool}"', "$.poll.collectors.my_interest.params.symbol"),
        ('"{symbol}"', '"{symbol"', "$.poll.collectors.my_interest.params.symbol"),
        ("my_oi_{asset}", "my_oi_{coin}", "$.poll.collectors.my_interest.series[0].name"),
        ("my_oi_{asset}", "oi_{asset}", "is written by binance_um_open_interest already"),
        ('resolution = "1d"', 'resolution = "daily"', "$.poll.collectors.usdt_supply.resolution"),
        ('resolution = "1d"', 'resolution = "400d"', "$.poll.collectors.usdt_supply.resolution"),
        ('every = "1h"', 'every = "30s"', "$.poll.collectors.usdt_supply.every"),
        ('time = "date"', "", "missing required field `time` - at `$.poll.collectors.usdt_supply`"),
        ("above = 0", "abov = 0", "did you mean `above`?"),
        ("stablecoin = 1", "stablecoin = 1.5", "$.poll.collectors.usdt_supply.params"),
        ('symbols = ["ALL"]', 'symbols = ["../ALL"]', "$.poll.collectors.usdt_supply.symbols[0]"),
        ("https://stablecoins", "stablecoins", "$.poll.providers.llama.host"),
        ('path = "/stable', 'path = "stable', "$.poll.collectors.usdt_supply.path"),
        ('fields = [{ path = "openInterest" }]', "fields = []", "$.poll.collectors.my_interest.series[0].fields"),
        (
            'resolution = "15m"',
            'resolution = "settlement"\nhistory = { rows = 100 }',
            "$.poll.collectors.my_interest.history.step",
        ),
    ],
)
def test_a_mistake_is_told_with_the_path_of_its_key(old: str, new: str, path: str, tmp_path: Path) -> None:
    assert old in MINE
    with pytest.raises(ConfigError) as caught:
        declared(poll_of(MINE.replace(old, new), tmp_path))
    assert path in str(caught.value)


def test_an_unknown_name_in_only_is_told_with_those_that_are() -> None:
    with pytest.raises(ConfigError, match="no collector is named 'oi': known are binance_um_open_interest"):
        declared(Poll(only=("oi",)))


def test_the_built_in_declarations_pass_the_checks_of_a_users_own() -> None:
    ours = built_in()
    assert declared(Poll(providers=ours.providers, collectors=ours.collectors)) == ours
