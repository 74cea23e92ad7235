"""The simulated market's tapes: the same however they are cut, on the wire's decimals, ordered, true to the engine."""

import msgspec
import numpy as np
import polars as pl
import pytest

from backtest.market.simulate import LAG_MS, Market, market_chunks
from backtest.market.tape import Rows, Tape
from backtest.market.truth import DECAY_S, drift_bps, reference_share
from core.config import DEFAULT_SYMBOLS, Sim, load
from core.errors import ConfigError
from core.units import NS_PER_MINUTE, NS_PER_MS, NS_PER_S

TABLES = ("quotes", "trades", "depth", "liquidations", "marks")


def run(minutes: list[float], symbols: tuple[str, ...] = DEFAULT_SYMBOLS, seed: int = 3) -> list[list[Tape]]:
    market = Market(Sim(), symbols, seed)
    return [market.chunk(step) for step in minutes]


@pytest.fixture(scope="module")
def chunks() -> list[list[Tape]]:
    return run([4.0, 2.0])


def joined(chunks: list[list[Tape]], place: int, table: str) -> Rows:
    return np.concatenate([getattr(tapes[place], table) for tapes in chunks])


def test_tapes_do_not_depend_on_the_length_of_the_chunks(chunks: list[list[Tape]]) -> None:
    other = run([1.0, 0.5, 0.25, 2.25, 2.0])
    for place in range(len(DEFAULT_SYMBOLS)):
        for table in ("quotes", "trades", "liquidations", "marks", "levels"):
            assert np.array_equal(joined(chunks, place, table), joined(other, place, table)), table
        whole, cut = joined(chunks, place, "depth"), joined(other, place, "depth")
        clocks = ["exch_ns", "recv_ns", "first_update_id", "update_id", "prev_update_id"]
        assert np.array_equal(whole[clocks], cut[clocks])


def test_a_symbol_does_not_depend_on_what_else_is_traded(chunks: list[list[Tape]]) -> None:
    alone = run([6.0], symbols=("bybit:ETHUSDT",))
    together = joined(chunks, 3, "quotes")
    assert np.array_equal(alone[0][0].quotes["bid_price"], together["bid_price"])


def test_receive_times_rise_and_are_unique_over_the_market(chunks: list[list[Tape]]) -> None:
    seen = np.concatenate([joined(chunks, place, table)["recv_ns"] for place in range(4) for table in TABLES])
    assert np.unique(seen).size == seen.size
    for tapes in chunks:
        for tape in tapes:
            for table in TABLES:
                rows = getattr(tape, table)
                assert np.all(np.diff(rows["recv_ns"]) > 0)
                assert np.all(rows["exch_ns"] % NS_PER_MS == 0)
                assert rows.size == 0 or tape.from_ns <= rows["recv_ns"][0] <= rows["recv_ns"][-1] < tape.to_ns


def test_values_are_the_doubles_nearest_to_the_decimals_of_the_wire(chunks: list[list[Tape]]) -> None:
    for tape in chunks[0]:
        price, qty = f"%.{tape.instrument.price_decimals}f", f"%.{tape.instrument.qty_decimals}f"
        for values, form in (
            (tape.quotes["bid_price"], price),
            (tape.quotes["ask_qty"], qty),
            (tape.trades["price"], price),
            (tape.levels["qty"], qty),
            (tape.marks["mark_price"], price),
            (tape.marks["funding_rate"], "%.8f"),
        ):
            assert [float(form % value) for value in values.tolist()] == values.tolist()


def test_a_book_kept_from_the_start_has_the_published_best_prices(chunks: list[list[Tape]]) -> None:
    """Snapshot and changes give, at each change, the quote with the same number of book changes behind it."""
    compared = 0
    for tape in (tape for tape in chunks[0] if tape.instrument.venue == "binance_um"):
        held = {(level["side"], level["price"]): level["qty"] for level in tape.book_at_start.levels}
        quotes = {int(row["update_id"]): row for row in tape.quotes}
        for change in tape.depth:
            for level in tape.levels[change["level_start"] : change["level_stop"]]:
                held[level["side"], level["price"]] = level["qty"]
            bid = max(price for (side, price), qty in held.items() if side > 0 and qty > 0)
            ask = min(price for (side, price), qty in held.items() if side < 0 and qty > 0)
            assert bid < ask
            quote = quotes.get(int(change["update_id"]))
            if quote is not None:
                compared += 1
                assert (quote["bid_price"], quote["ask_price"]) == (bid, ask)
                assert (quote["bid_qty"], quote["ask_qty"]) == (held[1, bid], held[-1, ask])
    assert compared > 300


def test_levels_of_a_change_are_sorted_and_changes_are_linked(chunks: list[list[Tape]]) -> None:
    for place in range(4):
        depth = joined(chunks, place, "depth")
        assert np.all(depth["prev_update_id"][1:] == depth["update_id"][:-1])
        tape = chunks[1][place]
        assert tape.depth["level_start"][0] == 0
        assert np.all(tape.depth["level_start"][1:] == tape.depth["level_stop"][:-1])
        for change in tape.depth[:50]:
            levels = tape.levels[change["level_start"] : change["level_stop"]]
            keys = np.lexsort((-levels["side"] * levels["price"], -levels["side"]))
            assert np.array_equal(keys, np.arange(levels.size))


def test_trades_print_at_a_price_that_was_quoted_and_quotes_follow_them(chunks: list[list[Tape]]) -> None:
    tape = chunks[0][0]
    before = np.searchsorted(tape.quotes["recv_ns"], tape.trades["recv_ns"]) - 1
    known = before >= 0
    trades, quotes = tape.trades[known], tape.quotes[before[known]]
    touch = np.where(trades["taker_side"] > 0, quotes["ask_price"], quotes["bid_price"])
    beyond = trades["taker_side"] * (trades["price"] - touch) / touch * 1e4
    assert beyond.min() >= 0.0
    assert np.mean(beyond == 0.0) > 0.7


def test_the_second_venue_follows_the_first_by_its_lag(chunks: list[list[Tape]]) -> None:
    """At the laggard's clock less its lag, both venues quote the same mid (to a tick)."""
    lead, lag = joined(chunks, 0, "quotes"), joined(chunks, 2, "quotes")
    when = np.arange(lead["exch_ns"][5], lead["exch_ns"][-5], NS_PER_S)
    mids = []
    for quotes, shift_ms in ((lead, 0.0), (lag, LAG_MS["bybit"])):
        place = np.searchsorted(quotes["exch_ns"], when + int(shift_ms * NS_PER_MS), side="right") - 1
        mids.append((quotes["bid_price"][place] + quotes["ask_price"][place]) / 2.0)
    assert np.median(np.abs(mids[0] - mids[1])) <= 0.1
    assert np.mean(np.abs(mids[0] - mids[1]) < 0.11) > 0.97


def test_binance_publishes_one_liquidation_a_second_and_bybit_all() -> None:
    tapes = run([30.0], symbols=("binance_um:BTCUSDT", "bybit:BTCUSDT"))[0]
    sampled, every = tapes[0].liquidations, tapes[1].liquidations
    assert 0 < sampled.size <= every.size
    assert np.unique(sampled["exch_ns"] // NS_PER_S).size == sampled.size
    assert set(np.unique(every["liquidated"])) <= {-1, 1}


def test_a_null_pays_no_funding_and_an_edge_market_does() -> None:
    quiet = Market(Sim(edge=0.0), ("bybit:BTCUSDT",), 1).chunk(1.0)[0].marks
    paying = Market(Sim(edge=14.0), ("bybit:BTCUSDT",), 1).chunk(1.0)[0].marks
    assert np.all(quiet["funding_rate"] == 0.0)
    assert np.all(paying["funding_rate"] != 0.0)
    assert np.all(paying["next_funding_ns"] % (8 * 60 * NS_PER_MINUTE) == 0)
    assert np.all(paying["next_funding_ns"] > paying["exch_ns"])


def test_a_symbol_without_an_entry_is_traded_and_a_strange_venue_is_refused() -> None:
    tape = Market(Sim(), ("bybit:PEPEUSDT",), 1).chunk(1.0)[0]
    assert tape.quotes.size > 60
    assert np.all(tape.quotes["bid_price"] < tape.quotes["ask_price"])
    with pytest.raises(ConfigError, match=r"binance:BTCUSDT.*binance_um, bybit.*\$\.symbols"):
        Market(Sim(), ("binance:BTCUSDT",), 1)


def test_the_fresh_stretch_is_the_same_market_continued(tmp_path: object) -> None:
    pairs = ["sim.hours=0.1", "sim.live_minutes=2", f"data_dir={tmp_path}", "symbols=binance_um:BTCUSDT"]
    config = load(None, pairs)
    history, fresh = list(market_chunks(config, "history")), list(market_chunks(config, "fresh"))
    assert history[-1][0].to_ns == fresh[0][0].from_ns
    whole = Market(config.sim, ("binance_um:BTCUSDT",), config.seed).chunk(8.0)[0]
    parts = np.concatenate([tapes[0].trades for tapes in (*history, *fresh)])
    assert np.array_equal(parts, whole.trades)
    bursts = pl.read_parquet(config.root / "truth" / "bursts.parquet")
    facts = msgspec.json.decode((config.root / "truth" / "market.json").read_bytes())
    assert facts["edge_bps"] == config.sim.edge
    assert bursts["start_ns"].max() is None or bursts["start_ns"].max() < history[-1][0].to_ns  # type: ignore[operator]


def test_the_drift_is_the_edge_divided_by_what_the_reference_policy_gets() -> None:
    ages = (np.arange(100_000) + 0.5) / 100_000  # of the burst at the decision: uniform over the grid's step
    share = np.exp(-ages / DECAY_S).mean() * (1.0 - np.exp(-10.0 / DECAY_S))
    assert reference_share(10.0) == pytest.approx(share, rel=1e-9)
    assert drift_bps(Sim(edge=14.0)) * share == pytest.approx(14.0)
    assert drift_bps(Sim(edge=0.0)) == 0.0
