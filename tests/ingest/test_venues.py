"""URLs to venues."""

import pytest

from ingest.venues import decoder_for, is_local, venue_of


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
        ("ws://127.0.0.1:8000/dstream/stream", "binance_cm"),
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


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2:9800", "localhost", "[::1]:9800", "0.0.0.0:80"])
def test_what_is_on_loopback_is_no_venue(host: str) -> None:
    assert is_local(f"ws://{host}/stream")
    assert not is_local(f"wss://stream.binance.com/{host}")
