"""What a client of the two venues may ask, and what it is answered (exchange_protocols.md A.1, A.2, C.2)."""

import json

import pytest

from backtest.market.sessions import Session, answer, binance_topic, bybit_topic, hangs_up, open_session


def opened(target: str) -> Session:
    session = open_session(target, 1)
    assert session is not None
    return session


def ask(session: Session, **request: object) -> dict[str, object]:
    reply: dict[str, object] = json.loads(answer(session, json.dumps(request))[0])
    return reply


def heard(session: Session) -> list[str]:
    return [topic.name for topic in session.heard]


def test_streams_may_stand_in_the_url() -> None:
    raw = opened("/public/ws/btcusdt@bookTicker/btcusdt@depth@100ms")
    assert (raw.combined, heard(raw)) == (False, ["btcusdt@bookTicker", "btcusdt@depth@100ms"])
    combined = opened("/market/stream?streams=btcusdt@aggTrade/btcusdt@markPrice@1s")
    assert (combined.combined, heard(combined)) == (True, ["btcusdt@aggTrade", "btcusdt@markPrice@1s"])


def test_an_unknown_path_is_no_venue() -> None:
    assert open_session("/private/ws", 1) is None
    assert open_session("/v5/public/spot", 1) is None
    assert open_session("/", 1) is None


@pytest.mark.parametrize(
    ("path", "heard_there"),
    [
        ("/public/ws", ["btcusdt@bookTicker", "btcusdt@depth5"]),
        ("/market/ws", ["btcusdt@aggTrade", "btcusdt@forceOrder", "btcusdt@markPrice"]),
        ("/ws", ["btcusdt@bookTicker", "btcusdt@depth5"]),
    ],
)
def test_a_stream_of_the_other_category_is_acknowledged_and_silent(path: str, heard_there: list[str]) -> None:
    session = opened(path)
    names = ["btcusdt@bookTicker", "btcusdt@depth5", "btcusdt@aggTrade", "btcusdt@forceOrder", "btcusdt@markPrice"]
    assert ask(session, method="SUBSCRIBE", params=names, id=7) == {"result": None, "id": 7}
    assert ask(session, method="LIST_SUBSCRIPTIONS", id=8) == {"result": names, "id": 8}
    assert heard(session) == heard_there


def test_binance_unsubscribe_and_set_property() -> None:
    session = opened("/public/ws/btcusdt@bookTicker/ethusdt@bookTicker")
    assert ask(session, method="UNSUBSCRIBE", params=["btcusdt@bookTicker"], id=2) == {"result": None, "id": 2}
    assert heard(session) == ["ethusdt@bookTicker"]
    ask(session, method="SET_PROPERTY", params=["combined", True], id=3)
    assert session.combined


def test_binance_refuses_what_it_does_not_understand() -> None:
    session = opened("/public/ws")
    assert "error" in ask(session, method="DANCE", id=1)
    assert "error" in json.loads(answer(session, "not json")[0])


def test_bybit_subscribes_all_or_nothing() -> None:
    session = opened("/v5/public/linear")
    first = ask(session, op="subscribe", req_id="a", args=["publicTrade.BTCUSDT"])
    assert (first["success"], first["req_id"], first["op"]) == (True, "a", "subscribe")
    again = ask(session, op="subscribe", req_id="b", args=["tickers.BTCUSDT", "publicTrade.BTCUSDT"])
    assert again["success"] is False
    assert again["ret_msg"] == "error:already subscribed,topic:publicTrade.BTCUSDT"
    assert heard(session) == ["publicTrade.BTCUSDT"]
    assert ask(session, op="subscribe", req_id="c", args=["orderbook.500.BTCUSDT"])["success"] is False


def test_bybit_pong_says_ping() -> None:
    reply = ask(opened("/v5/public/linear"), op="ping", req_id="1")
    assert (reply["success"], reply["ret_msg"], reply["op"]) == (True, "pong", "ping")


def test_only_topics_that_are_new_are_reported() -> None:
    session = opened("/v5/public/linear")
    names = ["orderbook.50.BTCUSDT", "tickers.BTCUSDT"]
    _, added = answer(session, json.dumps({"op": "subscribe", "args": names}))
    assert [(topic.name, topic.levels) for topic in added] == [(names[0], 50), (names[1], 0)]
    _, added = answer(session, json.dumps({"op": "ping"}))
    assert not added


def test_stream_names_are_lower_case_and_symbols_upper() -> None:
    topic = binance_topic("btcusdt@depth20@100ms")
    assert topic is not None
    assert (topic.symbol, topic.kind, topic.levels) == ("BTCUSDT", "partial", 20)
    assert binance_topic("BTCUSDT@aggTrade") is None
    assert binance_topic("btcusdt@depth7") is None
    assert bybit_topic("liquidation.BTCUSDT") is None


def test_candles_have_an_interval() -> None:
    binance, bybit = binance_topic("btcusdt@kline_1m"), bybit_topic("kline.D.BTCUSDT")
    assert binance is not None
    assert bybit is not None
    assert (binance.symbol, binance.kind, binance.interval) == ("BTCUSDT", "klines", "1m")
    assert (bybit.symbol, bybit.kind, bybit.interval) == ("BTCUSDT", "klines", "1d")
    assert binance_topic("btcusdt@kline_7m") is None
    assert bybit_topic("kline.7.BTCUSDT") is None


def test_binance_takes_1024_streams_and_no_more() -> None:
    session = opened("/market/ws")
    names = [f"s{number}usdt@aggTrade" for number in range(1024)]
    assert ask(session, method="SUBSCRIBE", params=names, id=1) == {"result": None, "id": 1}
    assert "at most 1024 streams" in json.dumps(ask(session, method="SUBSCRIBE", params=["x@aggTrade"], id=2))
    assert ask(session, method="SUBSCRIBE", params=names[:5], id=3) == {"result": None, "id": 3}
    assert len(session.topics) == 1024


def test_bybit_takes_21000_characters_of_topics_and_no_more() -> None:
    session = opened("/v5/public/linear")
    names = [f"publicTrade.S{number:03d}USDT" for number in range(1100)]
    assert ask(session, op="subscribe", args=names[:1000])["success"] is True
    assert ask(session, op="subscribe", args=names[1000:])["success"] is False
    assert len(session.topics) == 1000


def test_binance_hangs_up_on_more_than_ten_messages_a_second() -> None:
    calm, eager = opened("/public/ws"), opened("/public/ws")
    assert not any(hangs_up(calm, number * 0.1) for number in range(30))
    assert [bool(hangs_up(eager, number * 0.09)) for number in range(12)] == [False] * 10 + [True] * 2
    bybit = opened("/v5/public/linear")
    assert not any(hangs_up(bybit, 0.0) for _ in range(30))
