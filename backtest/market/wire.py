"""Tapes as the venues write them: Binance USD-M (exchange_protocols.md A.4) and Bybit linear (C.3), to the key.

Each function formats one kind of a whole tape: a template per kind, filled by `%` row by row, since this is the
fastest formatting Python has (1-2 us a frame). Numbers are texts with the instrument's decimals. Binance functions
give the bare payload (as on `/ws`); `wrapped` makes it that of a combined stream. Bybit's frames are complete.

The engine's time is what the tape holds (`T`, `cts`); the gateway that sends the frame is GATEWAY_MS later (`E`, `ts`).
"""

from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from backtest.market.tape import Book, Instrument, Rows, Tape
from core.units import NS_PER_MS

GATEWAY_MS: Final = 1
_TICKER: Final = '{"topic":"tickers.%s","type":"%s","data":{%s},"cs":%d,"ts":%d}'


def wrapped(stream: str, payloads: Iterable[str]) -> list[str]:
    """Binance payloads as a combined stream sends them."""
    return [f'{{"stream":"{stream}","data":{payload}}}' for payload in payloads]


def binance_quotes(tape: Tape) -> list[str]:
    """`<s>@bookTicker`."""
    symbol, rows = tape.instrument.symbol, tape.quotes
    price, qty = formats(tape.instrument)
    template = (
        f'{{"e":"bookTicker","u":%d,"E":%d,"T":%d,"s":"{symbol}",'
        f'"b":"{price}","B":"{qty}","a":"{price}","A":"{qty}","st":1,"ps":"{symbol}"}}'
    )
    time = _ms(rows)
    prices = (rows[name] for name in ("bid_price", "bid_qty", "ask_price", "ask_qty"))
    return filled(template, rows["update_id"], time + GATEWAY_MS, time, *prices)


def binance_trades(tape: Tape) -> list[str]:
    """`<s>@aggTrade`: an aggregate of one trade, so that its first and last trade ids are its own."""
    rows = tape.trades
    price, qty = formats(tape.instrument)
    template = (
        f'{{"e":"aggTrade","E":%d,"s":"{tape.instrument.symbol}","a":%d,"p":"{price}","q":"{qty}","nq":"{qty}",'
        f'"f":%d,"l":%d,"T":%d,"m":%s,"st":1}}'
    )
    time, number = _ms(rows), rows["trade_id"]
    sold = np.where(rows["taker_side"] < 0, "true", "false")
    return filled(
        template, time + GATEWAY_MS, number, rows["price"], rows["qty"], rows["qty"], number, number, time, sold
    )


def binance_depth(tape: Tape) -> list[str]:
    """`<s>@depth…`: changes, linked by `pu`."""
    rows, symbol = tape.depth, tape.instrument.symbol
    bids, asks = _sides(tape)
    return filled(_binance_depth_template(symbol), *_depth_numbers(rows), bids, asks)


def binance_partial(tape: Tape, levels: int) -> list[str]:
    """`<s>@depth5|10|20…`: the best levels after each change, under the key names of a change."""
    rows, tops = tape.depth, [_level_texts(tape.instrument, book, levels) for book in books_after(tape)]
    bids, asks = [top[0] for top in tops], [top[1] for top in tops]
    return filled(_binance_depth_template(tape.instrument.symbol), *_depth_numbers(rows), bids, asks)


def binance_marks(tape: Tape) -> list[str]:
    """`<s>@markPrice@1s`. Its only time is `E`; `T` is the next funding's. Binance streams no open interest."""
    rows = tape.marks
    template = (
        f'{{"e":"markPriceUpdate","E":%d,"s":"{tape.instrument.symbol}","p":"%.8f","ap":"%.8f","i":"%.8f","P":"%.8f",'
        f'"r":"%.8f","T":%d,"st":1}}'
    )
    mark, index = rows["mark_price"], rows["index_price"]
    funding_ms = rows["next_funding_ns"] // NS_PER_MS
    return filled(template, _ms(rows), mark, mark, index, mark, rows["funding_rate"], funding_ms)


def binance_liquidations(tape: Tape) -> list[str]:
    """`<s>@forceOrder`: `S` is the side of the forced order, so a long is closed by SELL."""
    rows = tape.liquidations
    price, qty = formats(tape.instrument)
    template = (
        f'{{"e":"forceOrder","E":%d,"o":{{"s":"{tape.instrument.symbol}","S":"%s","o":"LIMIT","f":"IOC","q":"{qty}",'
        f'"p":"{price}","ap":"{price}","X":"FILLED","l":"{qty}","z":"{qty}","T":%d}}}}'
    )
    time, size = _ms(rows), rows["qty"]
    side = np.where(rows["liquidated"] > 0, "SELL", "BUY")
    return filled(template, time + GATEWAY_MS, side, size, rows["price"], rows["price"], size, size, time)


def binance_snapshot(instrument: Instrument, book: Book, limit: int) -> str:
    """The body of `GET /fapi/v1/depth`."""
    bids, asks = _level_texts(instrument, book, limit)
    time = book.exch_ns // NS_PER_MS
    return f'{{"lastUpdateId":{book.update_id},"E":{time + GATEWAY_MS},"T":{time},"bids":[{bids}],"asks":[{asks}]}}'


def binance_rest_trades(instrument: Instrument, rows: Rows) -> str:
    """The body of `GET /fapi/v1/aggTrades`."""
    price, qty = formats(instrument)
    template = f'{{"a":%d,"p":"{price}","q":"{qty}","nq":"{qty}","f":%d,"l":%d,"T":%d,"m":%s}}'
    number, size = rows["trade_id"], rows["qty"]
    sold = np.where(rows["taker_side"] < 0, "true", "false")
    return f"[{','.join(filled(template, number, rows['price'], size, size, number, number, _ms(rows), sold))}]"


def bybit_trade_id(number: int) -> str:
    """The trade id that the venue gives to the tape's: a UUID in form, as there."""
    return f"00000000-0000-5000-8000-{number:012d}"


def bybit_rest_trades(instrument: Instrument, rows: Rows) -> str:
    """The `result` of `GET /v5/market/recent-trade`, newest first; `rows` are oldest first."""
    price, qty = formats(instrument)
    template = (
        f'{{"execId":"%s","symbol":"{instrument.symbol}","price":"{price}","size":"{qty}","side":"%s","time":"%d",'
        f'"isBlockTrade":false,"isRPITrade":false,"seq":"%d"}}'
    )
    newest = rows[::-1]
    side, number = np.where(newest["taker_side"] > 0, "Buy", "Sell"), newest["trade_id"]
    identity = [bybit_trade_id(one) for one in number.tolist()]
    texts = filled(template, identity, newest["price"], newest["qty"], side, _ms(newest), number)
    return f'{{"category":"linear","list":[{",".join(texts)}]}}'


def bybit_quotes(tape: Tape) -> list[str]:
    """`orderbook.1.<s>`: each change is a snapshot of the best prices. A row that repeats the update id of the one
    before it is that snapshot sent again: the gateway's time is then later by as much as it is received later.
    """
    rows, symbol = tape.quotes, tape.instrument.symbol
    price, qty = formats(tape.instrument)
    template = (
        f'{{"topic":"orderbook.1.{symbol}","type":"snapshot","ts":%d,"data":{{"s":"{symbol}",'
        f'"b":[["{price}","{qty}"]],"a":[["{price}","{qty}"]],"u":%d,"seq":%d}},"cts":%d}}'
    )
    time, number = _ms(rows), rows["update_id"]
    prices = (rows[name] for name in ("bid_price", "bid_qty", "ask_price", "ask_qty"))
    return filled(template, time + GATEWAY_MS + _again_ms(rows), *prices, number, number, time)


def bybit_trades(tape: Tape) -> list[str]:
    """`publicTrade.<s>`, a message per trade. `S` is the taker's side."""
    rows, symbol = tape.trades, tape.instrument.symbol
    price, qty = formats(tape.instrument)
    template = (
        f'{{"topic":"publicTrade.{symbol}","type":"snapshot","ts":%d,"data":[{{"T":%d,"s":"{symbol}","S":"%s",'
        f'"v":"{qty}","p":"{price}","L":"%s","i":"%s","BT":false,"RPI":false,"seq":%d}}]}}'
    )
    time, side = _ms(rows), np.where(rows["taker_side"] > 0, "Buy", "Sell")
    identity = [bybit_trade_id(number) for number in rows["trade_id"].tolist()]
    direction = _tick_directions(rows["price"])
    return filled(
        template, time + GATEWAY_MS, time, side, rows["qty"], rows["price"], direction, identity, rows["trade_id"]
    )


def bybit_depth(tape: Tape, levels: int) -> list[str]:
    """`orderbook.<levels>.<s>` after its snapshot: changes whose `u` rises by one."""
    rows, symbol = tape.depth, tape.instrument.symbol
    bids, asks = _sides(tape, gone="0")
    time, number = _ms(rows), rows["update_id"]
    template = _bybit_depth_template(symbol, levels, "delta")
    return filled(template, time + GATEWAY_MS, bids, asks, number, number, time)


def bybit_snapshot(instrument: Instrument, book: Book, levels: int) -> str:
    """The first message of `orderbook.<levels>.<s>`."""
    bids, asks = _level_texts(instrument, book, levels)
    time = book.exch_ns // NS_PER_MS
    template = _bybit_depth_template(instrument.symbol, levels, "snapshot")
    return template % (time + GATEWAY_MS, bids, asks, book.update_id, book.update_id, time)


def bybit_rest_book(instrument: Instrument, book: Book, limit: int) -> str:
    """The `result` of `GET /v5/market/orderbook`."""
    bids, asks = _level_texts(instrument, book, limit)
    time = book.exch_ns // NS_PER_MS
    return (
        f'{{"s":"{instrument.symbol}","b":[{bids}],"a":[{asks}],"ts":{time + GATEWAY_MS},"u":{book.update_id},'
        f'"seq":{book.update_id},"cts":{time}}}'
    )


def bybit_marks(tape: Tape, before: Rows) -> list[str]:
    """`tickers.<s>`: deltas that hold what has changed since the row before.

    `before` is the last row of the tape before this one, of shape (1,); where it is empty, the first is a snapshot.
    """
    rows = np.concatenate((before, tape.marks))
    fields, sent = ticker_fields(tape.instrument, rows), _ms(rows).tolist()
    texts = (
        [_bybit_ticker(tape.instrument.symbol, "snapshot", fields[0], sent[0])] if not before.size and rows.size else []
    )
    for place in range(1, rows.size):
        changed = {key: text for key, text in fields[place].items() if text != fields[place - 1][key]}
        texts.append(_bybit_ticker(tape.instrument.symbol, "delta", changed, sent[place]))
    return texts


def bybit_ticker_snapshot(instrument: Instrument, row: Rows, now_ns: int) -> str:
    """The first message of `tickers.<s>` for who subscribes now: all fields of one row, of shape (1,)."""
    return _bybit_ticker(instrument.symbol, "snapshot", ticker_fields(instrument, row)[0], now_ns // NS_PER_MS)


def bybit_liquidations(tape: Tape) -> list[str]:
    """`allLiquidation.<s>`: `S` is the side of the position, so `Buy` says that a long was closed."""
    rows, symbol = tape.liquidations, tape.instrument.symbol
    price, qty = formats(tape.instrument)
    template = (
        f'{{"topic":"allLiquidation.{symbol}","type":"snapshot","ts":%d,"data":[{{"T":%d,"s":"{symbol}","S":"%s",'
        f'"v":"{qty}","p":"{price}"}}]}}'
    )
    time, side = _ms(rows), np.where(rows["liquidated"] > 0, "Buy", "Sell")
    return filled(template, time + GATEWAY_MS, time, side, rows["qty"], rows["price"])


def book_at(tape: Tape, now_ns: int) -> Book:
    """The book after all changes of the tape received before `now_ns`."""
    books = books_after(tape, int(np.searchsorted(tape.depth["recv_ns"], now_ns)))
    return books[-1] if books else tape.book_at_start


def books_after(tape: Tape, count: int | None = None) -> list[Book]:
    """The book after each of the first `count` changes of the tape (all, if not given). O(levels) each.

    The first change may be older than the book at the start, since it was on its way then: it is not applied again.
    """
    at = {(side, price): qty for side, price, qty in tape.book_at_start.levels.tolist()}
    last_id, books = tape.book_at_start.update_id, []
    for row in tape.depth[:count]:
        if row["update_id"] > last_id:
            last_id = int(row["update_id"])
            _apply(at, tape.levels[row["level_start"] : row["level_stop"]])
        levels = sorted(((*key, qty) for key, qty in at.items()), key=lambda level: (-level[0], -level[0] * level[1]))
        books.append(Book(int(row["exch_ns"]), int(row["recv_ns"]), last_id, np.array(levels, tape.levels.dtype)))
    return books


def _apply(at: dict[tuple[int, float], float], levels: Rows) -> None:
    """Absolute quantities by (side, price); 0 removes a level, and removing an unknown one is normal."""
    for side, price, qty in levels.tolist():
        if qty:
            at[side, price] = qty
        else:
            at.pop((side, price), None)


def formats(instrument: Instrument) -> tuple[str, str]:
    """How a price and a quantity are written."""
    return f"%.{instrument.price_decimals}f", f"%.{instrument.qty_decimals}f"


def _again_ms(rows: Rows) -> NDArray[np.int64]:
    """How much later each row is received than the first row of its update id, in ms."""
    is_first = np.diff(rows["update_id"], prepend=-1) != 0
    first = np.maximum.accumulate(np.where(is_first, np.arange(rows.size), 0))
    later: NDArray[np.int64] = (rows["recv_ns"] - rows["recv_ns"][first]) // NS_PER_MS
    return later


def _ms(rows: Rows) -> NDArray[np.int64]:
    return rows["exch_ns"] // NS_PER_MS


def filled(template: str, *columns: NDArray[np.generic] | list[str]) -> list[str]:
    """The template filled once per row. Python values format several times faster than numpy scalars."""
    lists = [column.tolist() if isinstance(column, np.ndarray) else column for column in columns]
    return [template % row for row in zip(*lists, strict=True)]


def _binance_depth_template(symbol: str) -> str:
    return (
        f'{{"e":"depthUpdate","E":%d,"T":%d,"s":"{symbol}","U":%d,"u":%d,"pu":%d,"b":[%s],"a":[%s],'
        f'"st":1,"ps":"{symbol}"}}'
    )


def _depth_numbers(rows: Rows) -> tuple[NDArray[np.int64], ...]:
    time = _ms(rows)
    return time + GATEWAY_MS, time, rows["first_update_id"], rows["update_id"], rows["prev_update_id"]


def _bybit_depth_template(symbol: str, levels: int, kind: str) -> str:
    return (
        f'{{"topic":"orderbook.{levels}.{symbol}","type":"{kind}","ts":%d,"data":{{"s":"{symbol}","b":[%s],"a":[%s],'
        f'"u":%d,"seq":%d}},"cts":%d}}'
    )


def _pairs(instrument: Instrument, levels: Rows, gone: str | None = None) -> list[str]:
    """`["price","qty"]` of each level; `gone` is how the venue writes a quantity of 0, None: like any other."""
    price, qty = formats(instrument)
    there, not_there = f'["{price}","{qty}"]', f'["{price}","{gone or qty % 0}"]'
    pairs = zip(levels["price"].tolist(), levels["qty"].tolist(), strict=True)
    return [there % pair if pair[1] else not_there % pair[0] for pair in pairs]


def _sides(tape: Tape, gone: str | None = None) -> tuple[list[str], list[str]]:
    """The bids and the asks of each change of a tape, as texts."""
    texts = _pairs(tape.instrument, tape.levels, gone)
    bids_before = np.concatenate(([0], np.cumsum(tape.levels["side"] > 0)))
    start, stop = tape.depth["level_start"], tape.depth["level_stop"]
    split = (start + bids_before[stop] - bids_before[start]).tolist()
    bids = [",".join(texts[first:last]) for first, last in zip(start.tolist(), split, strict=True)]
    asks = [",".join(texts[first:last]) for first, last in zip(split, stop.tolist(), strict=True)]
    return bids, asks


def _level_texts(instrument: Instrument, book: Book, limit: int) -> tuple[str, str]:
    """The best `limit` bids and asks of a book, as texts."""
    is_bid = book.levels["side"] > 0
    bids, asks = book.levels[is_bid][:limit], book.levels[~is_bid][:limit]
    return ",".join(_pairs(instrument, bids)), ",".join(_pairs(instrument, asks))


def _tick_directions(prices: NDArray[np.float64]) -> list[str]:
    """Bybit's `L`: Plus or Minus by the last change of price, with Zero before it if this trade changed nothing."""
    change = np.sign(np.diff(prices, prepend=prices[:1]))
    last = np.maximum.accumulate(np.where(change != 0, np.arange(change.size), 0))
    names = np.where(change[last] < 0, "MinusTick", "PlusTick") if change.size else np.empty(0, "U9")
    return [
        name if moved else f"Zero{name}" for name, moved in zip(names.tolist(), (change != 0).tolist(), strict=True)
    ]


def ticker_fields(instrument: Instrument, rows: Rows) -> list[dict[str, str]]:
    """The fields of `tickers` of each row. `openInterest` counts both sides (C.3), `singleOpenInterest` one."""
    columns = {
        "markPrice": ("%.8f", rows["mark_price"]),
        "indexPrice": ("%.8f", rows["index_price"]),
        "openInterest": (formats(instrument)[1], 2 * rows["open_interest"]),
        "singleOpenInterest": (formats(instrument)[1], rows["open_interest"]),
        "fundingIntervalHour": ("%d", np.full(rows.size, 8)),
        "nextFundingTime": ("%d", rows["next_funding_ns"] // NS_PER_MS),
        "fundingRate": ("%.8f", rows["funding_rate"]),
    }
    texts = [filled(template, values) for template, values in columns.values()]
    return [dict(zip(columns, row, strict=True)) for row in zip(*texts, strict=True)]


def _bybit_ticker(symbol: str, kind: str, fields: dict[str, str], sent_ms: int) -> str:
    body = ",".join(f'"{key}":"{text}"' for key, text in {"symbol": symbol, **fields}.items())
    return _TICKER % (symbol, kind, body, sent_ms, sent_ms)
