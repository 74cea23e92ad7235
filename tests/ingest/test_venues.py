"""URLs to venues, and what is asked for on which connection."""

import json

import pytest

from core.config import Capture, Hosts
from core.errors import ConfigError
from core.servers import local_hosts
from ingest.venues import decoder_for, plans, venue_of


@pytest.mark.parametrize(
    ("url", "venue"),
    [
        ("wss://fstream.binance.com/public/stream", "binance_um"),
        ("wss://fstream.binance.com/stream?streams=btcusdt@aggTrade", "binance_um"),
        ("wss://fstream.binancefuture.com/market/ws", "binance_um"),
        ("https://fapi.binance.com/fapi/v1/depth?symbol=X", "binance_um"),
        ("wss://dstream.binance.com/stream", "binance_cm"),
        ("https://dapi.binance.com/dapi/v1/depth?symbol=X", "binance_cm"),
        ("wss://stream.binance.com:9443/stream", "binance"),
        ("wss://data-stream.binance.vision/ws/btcusdt@trade", "binance"),
        ("https://api.binance.com/api/v3/depth?symbol=X", "binance"),
        ("wss://stream.bybit.com/v5/public/linear", "bybit"),
        ("wss://stream-testnet.bybit.com/v5/public/spot", "bybit_spot"),
        ("wss://stream.bybit.com/v5/public/inverse", "bybit_inverse"),
        ("https://api.bybit.com/v5/market/instruments-info?category=spot", "bybit_spot"),
        ("ws://127.0.0.1:8000/public/stream", "binance_um"),
        ("ws://127.0.0.1:8000/stream", "binance"),
        ("ws://127.0.0.1:8000/v5/public/linear", "bybit"),
        ("http://127.0.0.1:8000/fapi/v1/depth?symbol=X", "binance_um"),
    ],
)
def test_a_url_names_its_venue(url: str, venue: str) -> None:
    assert venue_of(url) == venue
    assert decoder_for(url)[0] == venue


@pytest.mark.parametrize("url", ["wss://ws.okx.com:8443/ws/v5/public", "wss://stream.bybit.com/v5/public/option", "x"])
def test_a_url_of_no_venue_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="no decoder"):
        decoder_for(url)


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


def test_requests_stay_within_the_venues_limits() -> None:
    symbols = [f"binance_um:S{n}USDT" for n in range(200)] + [f"bybit:S{n}USDT" for n in range(30)]
    for plan in plans(symbols, Capture(), Hosts()):
        for request in map(json.loads, plan.requests):
            assert len(request.get("params", [])) <= 100
            assert len(request.get("args", [])) <= 10
        requests = map(json.loads, plan.requests)
        asked = [name for request in requests for name in request.get("params", request.get("args"))]
        assert len(asked) == len(set(asked)) == len(plan.feeds)


def test_each_venue_has_its_own_connection_and_the_local_server_is_all_of_them() -> None:
    found = plans(["binance:A", "bybit:B", "bybit_spot:C"], Capture(), local_hosts("127.0.0.1:9"))
    assert [plan.url for plan in found] == [
        "ws://127.0.0.1:9/stream",
        "ws://127.0.0.1:9/v5/public/linear",
        "ws://127.0.0.1:9/v5/public/spot",
    ]


def test_a_venue_without_capture_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="okx"):
        plans(["okx:BTC-USDT"], Capture(), Hosts())
