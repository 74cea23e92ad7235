"""Collectors: each endpoint's documented example to its exact points, and answers that are not as documented."""

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from core.config import Hosts, Poll
from core.polling import Collector, Field, Provider, Series
from core.units import NS_PER_MS, NS_PER_S, parse_duration_ns
from ingest.collectors import Answer, Busy, Point, Refused, Target, look_up, number_at, read_answer
from ingest.declarations import declared, targets

SYMBOLS = ("binance_um:BTCUSDT", "bybit:BTCUSDT", "bybit_inverse:BTCUSD")
TARGETS = {target.key: target for target in targets(declared(Poll()), SYMBOLS, Hosts())}


def points_of(key: str, tree: Any) -> list[tuple[str, int, float]]:
    """(name, ms, value) of an answer that has no faults."""
    answer = read_answer(TARGETS[key], json.dumps(tree).encode())
    assert not answer.faults
    return [(one.name, one.time_ns // NS_PER_MS, one.value) for one in answer.points]


def enveloped(result: Any, time_ms: int = 1_780_963_201_000) -> Any:
    return {"retCode": 0, "retMsg": "OK", "result": result, "retExtInfo": {}, "time": time_ms}


RATIO_ROW = {"symbol": "BTCUSDT", "longShortRatio": "1.9559", "longAccount": "0.6617", "shortAccount": "0.3382"}
INTEREST_ROW = {"symbol": "BTCUSDT", "sumOpenInterest": "20403.637", "sumOpenInterestValue": "150570784.07"}
BASIS_ROW = {
    "indexPrice": "34400.15945055",
    "contractType": "PERPETUAL",
    "basisRate": "0.0004",
    "futuresPrice": "34414.10",
    "annualizedBasisRate": "",
    "basis": "13.94054945",
    "pair": "BTCUSDT",
}
PREMIUM = {
    "symbol": "BTCUSDT",
    "markPrice": "11793.63104562",
    "indexPrice": "11781.80495970",
    "estimatedSettlePrice": "11781.16138815",
    "lastFundingRate": "0.00038246",
    "interestRate": "0.00010000",
    "nextFundingTime": 1_597_392_000_000,
    "time": 1_597_370_495_002,
}
FUNDING = {
    "symbol": "BTCUSDT",
    "fundingRate": "-0.03750000",
    "fundingTime": 1_570_608_000_000,
    "markPrice": "34287.54619963",
    "rateType": "Regular",
}
TICKER = {
    "symbol": "BTCUSDT",
    "lastPrice": "66666.60",
    "markPrice": "66666.60",
    "indexPrice": "115418.19",
    "openInterest": "492373.72",
    "openInterestValue": "32824881841.75",
    "nextFundingTime": "1760342400000",
    "fundingRate": "-0.005",
}


@pytest.mark.parametrize(
    ("key", "tree", "expected"),
    [
        (
            "binance_um_open_interest/BTCUSDT",
            [INTEREST_ROW | {"timestamp": "1583127900000"}],
            [("oi_btc", 1_583_127_900_000, 20403.637), ("oi_usd_btc", 1_583_127_900_000, 150570784.07)],
        ),
        (
            "binance_um_ls_ratio_global/BTCUSDT",
            [RATIO_ROW | {"timestamp": 1_583_139_600_000}, RATIO_ROW | {"timestamp": "1583139900000"}],
            [
                ("ls_ratio_global_btc", 1_583_139_600_000, 1.9559),
                ("ls_ratio_global_btc", 1_583_139_900_000, 1.9559),
            ],
        ),
        (
            "binance_um_ls_ratio_top/BTCUSDT",
            [RATIO_ROW | {"timestamp": 1_583_139_600_000}],
            [("ls_ratio_top_btc", 1_583_139_600_000, 1.9559)],
        ),
        (
            "binance_um_ls_position_ratio/BTCUSDT",
            [RATIO_ROW | {"timestamp": 1_583_139_600_000}],
            [("ls_position_ratio_btc", 1_583_139_600_000, 1.9559)],
        ),
        (
            "binance_um_taker_ratio/BTCUSDT",
            [{"buySellRatio": "1.5586", "buyVol": "387.3300", "sellVol": "248.5030", "timestamp": "1585614900000"}],
            [("taker_ratio_btc", 1_585_614_900_000, 1.5586)],
        ),
        (
            "binance_um_basis/BTCUSDT",
            [BASIS_ROW | {"timestamp": 1_698_742_800_000}],
            [("basis_btc", 1_698_742_800_000, pytest.approx(34414.10 / 34400.15945055 - 1, abs=1e-15))],
        ),
        (
            "binance_um_premium/BTCUSDT",
            PREMIUM,
            [
                ("funding_rate_predicted_btc", 1_597_370_495_002, 0.00038246),
                ("premium_btc", 1_597_370_495_002, pytest.approx(11793.63104562 / 11781.80495970 - 1, abs=1e-15)),
            ],
        ),
        ("binance_um_funding/BTCUSDT", [FUNDING], [("funding_rate_btc", 1_570_608_000_000, -0.0375)]),
        (
            "bybit_open_interest/BTCUSDT",
            enveloped(
                {"list": [{"openInterest": "100.5", "singleOpenInterest": "50.25", "timestamp": "1780963200000"}]}
            ),
            [("oi_btc", 1_780_963_200_000, 50.25)],
        ),
        (
            "bybit_ls_ratio_global/BTCUSDT",
            enveloped({"list": [{"symbol": "BTCUSDT", "buyRatio": "0.5777", "sellRatio": "0.4223", "timestamp": "1"}]}),
            [("ls_ratio_global_btc", 1, pytest.approx(0.5777 / 0.4223, rel=1e-15))],
        ),
        (
            "bybit_tickers/BTCUSDT",
            enveloped({"category": "linear", "list": [TICKER]}, 1_760_325_052_630),
            [
                ("funding_rate_predicted_btc", 1_760_325_052_630, -0.005),
                ("premium_btc", 1_760_325_052_630, pytest.approx(66666.60 / 115418.19 - 1, abs=1e-15)),
                ("basis_btc", 1_760_325_052_630, pytest.approx(66666.60 / 115418.19 - 1, abs=1e-15)),
                ("oi_usd_btc", 1_760_325_052_630, 32824881841.75 / 2),
            ],
        ),
        (
            "bybit_funding/BTCUSDT",
            enveloped(
                {"list": [{"symbol": "BTCUSDT", "fundingRate": "0.0001", "fundingRateTimestamp": "1672041600000"}]}
            ),
            [("funding_rate_btc", 1_672_041_600_000, 0.0001)],
        ),
        (
            "bybit_inverse_open_interest/BTCUSD",
            enveloped({"list": [{"openInterest": "461134384", "timestamp": "1669571400000"}]}),
            [("oi_usd_btc", 1_669_571_400_000, 230567192.0)],
        ),
    ],
)
def test_a_documented_answer_gives_exactly_its_points(key: str, tree: Any, expected: list[Any]) -> None:
    assert points_of(key, tree) == expected


def test_bybits_two_sided_open_interest_is_halved_where_the_one_sided_is_missing() -> None:
    row = {"openInterest": "100.5", "timestamp": "1780963200000"}
    assert points_of("bybit_open_interest/BTCUSDT", enveloped({"list": [row]}))[0][2] == 50.25


def test_inverse_open_interest_is_told_in_base_units_by_the_mark_price() -> None:
    row = TICKER | {"openInterest": "1000", "markPrice": "50", "indexPrice": "50", "lastPrice": "50"}
    values = {name: value for name, _, value in points_of("bybit_inverse_tickers/BTCUSD", enveloped({"list": [row]}))}
    assert values["oi_btc"] == 10.0


def test_newest_first_comes_out_as_it_came_in() -> None:
    rows = [{"singleOpenInterest": str(value), "timestamp": str(value)} for value in (30, 20, 10)]
    assert [time for _, time, _ in points_of("bybit_open_interest/BTCUSDT", enveloped({"list": rows}))] == [30, 20, 10]


@pytest.mark.parametrize(
    ("key", "tree"),
    [
        ("binance_um_open_interest/BTCUSDT", []),
        ("bybit_open_interest/BTCUSDT", enveloped({"list": [], "nextPageCursor": ""})),
        ("bybit_open_interest/BTCUSDT", enveloped({})),
    ],
)
def test_an_empty_list_is_no_points_and_no_fault(key: str, tree: Any) -> None:
    assert points_of(key, tree) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"timestamp": None}, "no time at timestamp"),
        ({"timestamp": "soon"}, "no time at timestamp"),
        ({"sumOpenInterest": None}, "no number for oi_btc at sumOpenInterest"),
        ({"sumOpenInterest": "many"}, "no number for oi_btc at sumOpenInterest"),
        ({"sumOpenInterest": "NaN"}, "no number for oi_btc at sumOpenInterest"),
        ({"sumOpenInterest": "Infinity"}, "no number for oi_btc at sumOpenInterest"),
        ({"sumOpenInterest": True}, "no number for oi_btc at sumOpenInterest"),
        ({"sumOpenInterest": ["1"]}, "no number for oi_btc at sumOpenInterest"),
    ],
)
def test_what_cannot_be_read_is_counted_and_the_rest_is_kept(change: dict[str, Any], fault: str) -> None:
    good = INTEREST_ROW | {"timestamp": 600_000}
    body = json.dumps([good | change, good]).encode()
    answer = read_answer(TARGETS["binance_um_open_interest/BTCUSDT"], body)
    assert answer.faults == {fault: 1}
    assert answer.points[-2:] == [
        Point("oi_btc", 600 * NS_PER_S, 20403.637),
        Point("oi_usd_btc", 600 * NS_PER_S, 150570784.07),
    ]
    assert answer.n_rows == 2


def test_a_missing_key_and_an_index_of_zero_are_faults_and_empty_text_is_not() -> None:
    target = TARGETS["binance_um_premium/BTCUSDT"]
    without = {key: value for key, value in PREMIUM.items() if key != "lastFundingRate"}
    assert read_answer(target, json.dumps(without).encode()).faults == {
        "no number for funding_rate_predicted_btc at lastFundingRate": 1
    }
    delivering = PREMIUM | {"lastFundingRate": "", "indexPrice": "0.00000000"}
    answer = read_answer(target, json.dumps(delivering).encode())
    assert answer.faults == {"no number for premium_btc at markPrice": 1}


def test_a_status_in_an_answer_of_http_200_is_an_error() -> None:
    target = TARGETS["bybit_open_interest/BTCUSDT"]
    with pytest.raises(Refused, match="10001: params error") as caught:
        read_answer(target, b'{"retCode":10001,"retMsg":"params error: Symbol Invalid","result":{}}')
    assert caught.value.status == 10001
    with pytest.raises(Busy, match="10006"):
        read_answer(target, b'{"retCode":10006,"retMsg":"Too many visits!","result":{}}')
    with pytest.raises(Refused, match="-1130"):
        read_answer(TARGETS["binance_um_basis/BTCUSDT"], b'{"code":-1130,"msg":"startTime is invalid."}')


@pytest.mark.parametrize("body", [b"", b"<html>maintenance</html>", b"[1, 2", b"\xff\xfe"])
def test_what_is_no_json_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_answer(TARGETS["bybit_open_interest/BTCUSDT"], body)


def test_requests_are_those_of_the_documents() -> None:
    urls = {key: urlsplit(target.url()) for key, target in TARGETS.items()}
    basis = urls["binance_um_basis/BTCUSDT"]
    assert (basis.netloc, basis.path) == ("fapi.binance.com", "/futures/data/basis")
    assert parse_qs(basis.query) == {"pair": ["BTCUSDT"], "contractType": ["PERPETUAL"], "period": ["5m"]}
    inverse = parse_qs(urls["bybit_inverse_funding/BTCUSD"].query)
    assert inverse == {"category": ["inverse"], "symbol": ["BTCUSD"]}


def test_a_window_is_asked_for_with_both_ends_and_the_page_size() -> None:
    target = TARGETS["bybit_funding/BTCUSDT"]
    asked = parse_qs(urlsplit(target.window_url(1_000 * NS_PER_S, 2_000 * NS_PER_S, "abc")).query)
    assert (asked["startTime"], asked["endTime"], asked["limit"]) == (["1000000"], ["2000000"], ["200"])
    assert asked["cursor"] == ["abc"]
    assert target.step_ns == parse_duration_ns("1h")
    assert (target.interval_ns, target.span_ns) == (parse_duration_ns("8h"), 0)


def test_symbols_of_other_alphabets_are_percent_encoded() -> None:
    [target] = [
        one
        for one in targets(declared(Poll()), ["binance_um:币安人生USDT"], Hosts())
        if one.name == "binance_um_open_interest"
    ]
    assert "symbol=%E5%B8%81" in target.url()
    assert list(target.series) == ["oi_币安人生", "oi_usd_币安人生"]


def test_paths_reach_into_lists_and_the_whole_answer() -> None:
    tree = {"at": "1700000000", "data": [["1609459200", {"usd": 1.4e11}]]}
    assert look_up(tree, "data.0.1.usd") == 1.4e11
    assert look_up(tree, "data.3.1") is None
    assert number_at(tree, tree["data"][0], "$.at") == 1_700_000_000
    collector = Collector(
        "llama", "/x", (Series("supply", (Field("1.usd", scale=1e-9),)),), "0", "1d", rows="data", time_unit="s"
    )
    target = Target("supply", collector, Provider("https://example.org"), "https://example.org", "ALL")
    answer = read_answer(target, json.dumps(tree).encode())
    assert answer == Answer([Point("supply", 1_609_459_200 * NS_PER_S, 140.0)], {}, 1)
