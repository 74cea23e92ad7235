"""What the venues allow by REST, and how they refuse (exchange_protocols.md A.5, A.8, C.5)."""

from http import HTTPStatus

import pytest

from backtest.market.limits import USED_WEIGHT, Ceiling, Limits, cost_of
from backtest.market.query import Query

OK, MANY, TEAPOT = HTTPStatus.OK, HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.IM_A_TEAPOT
CEILINGS = {
    "weight": Ceiling(40, 60.0),
    "/futures/data": Ceiling(2, 300.0),
    "funding": Ceiling(2, 300.0),
    "bybit": Ceiling(3, 5.0),
}


def asked(target: str) -> Query:
    return Query(target, -1102)


def test_over_the_weight_comes_429_then_a_ban_that_doubles() -> None:
    limits, trades = Limits(CEILINGS), asked("/fapi/v1/aggTrades?symbol=BTCUSDT")
    assert [limits.admit(trades, 5.0).status for _ in range(3)] == [OK, OK, MANY]
    verdict = limits.admit(trades, 6.0)
    assert (verdict.status, verdict.headers["Retry-After"]) == (MANY, "55")
    assert limits.admit(trades, 61.0).status is OK
    statuses = [limits.admit(trades, 62.0).status for _ in range(12)]
    assert statuses[-1] is TEAPOT
    assert limits.admit(asked("/fapi/v1/time"), 130.0).status is TEAPOT
    assert limits.admit(asked("/fapi/v1/time"), 190.0).status is OK


def test_the_used_weight_is_told_and_starts_anew_each_minute() -> None:
    limits = Limits(CEILINGS)
    used = [limits.admit(asked("/fapi/v1/depth?symbol=X&limit=1000"), at_s).headers[USED_WEIGHT] for at_s in (1, 2, 61)]
    assert used == ["20", "40", "20"]


def test_positions_and_fundings_have_counts_of_their_own() -> None:
    limits = Limits(CEILINGS)
    for target in ("/futures/data/basis?pair=X", "/fapi/v1/fundingRate"):
        assert [limits.admit(asked(target), 1.0).status for _ in range(3)] == [OK, OK, MANY]
    assert limits.admit(asked("/fapi/v1/time"), 1.0).headers[USED_WEIGHT] == "1"


def test_bybit_pauses_ten_minutes_with_403() -> None:
    limits, target = Limits(CEILINGS), asked("/v5/market/time")
    assert [limits.admit(target, 1.0).status for _ in range(4)] == [OK, OK, OK, HTTPStatus.FORBIDDEN]
    assert limits.admit(target, 600.0).status is HTTPStatus.FORBIDDEN
    assert limits.admit(target, 602.0).status is OK


@pytest.mark.parametrize(
    ("target", "weight"),
    [
        ("/fapi/v1/depth?limit=50", 2),
        ("/fapi/v1/depth", 10),
        ("/fapi/v1/depth?limit=1000", 20),
        ("/fapi/v1/klines?limit=99", 1),
        ("/fapi/v1/klines?limit=1500", 10),
        ("/fapi/v1/premiumIndex", 10),
        ("/fapi/v1/premiumIndex?symbol=X", 1),
        ("/fapi/v1/openInterest?symbol=X", 1),
    ],
)
def test_weights_are_those_of_the_protocol_sheet(target: str, weight: int) -> None:
    assert cost_of(asked(target)) == ("weight", weight)
