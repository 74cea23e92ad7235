"""The set `cross`: how a symbol goes with BTCUSDT of the same venue, which must be among `symbols`.

Bitcoin leads the market of perpetual futures; for another leader, write these lines with `of_ETHUSDT` to
`features.mine`. Windows around `of_` are of rows, those inside of the leader's bars. A gap in the leader's data is one
here: nothing is known until the windows are full again. The leader goes with itself: its own rows say 1, 1 and 0.

`all` does not hold the set, since a run may lack the symbol; stage `correlate` prints the whole matrix.
"""

from typing import Final

from research.sets.feature import Feature

LEADER: Final = "BTCUSDT"
_CCZ: Final = "after Cont, Cucuringu, Zhang 2023"

DEFINITIONS: Final = {
    "leader_return_1s": f"(of_{LEADER} return_1s)",
    "leader_beta": "(beta_300s return_1s leader_return_1s)",
}
"""Names for use in features, beside those that all sets share."""


def _leaders(text: str) -> str:
    return f"(of_{LEADER} {text})"


_CROSS: Final = {
    "leader_corr_60s": Feature(
        "(corr_60s return_1s leader_return_1s)", "-1 to 1", "whether the symbol goes with the leader, by returns of 1 s"
    ),
    "leader_corr_300s": Feature("(corr_300s return_1s leader_return_1s)", "-1 to 1", "the same over five minutes"),
    "leader_beta_300s": Feature("leader_beta", "ratio", "what a return of the leader means for the symbol's own"),
    "leader_lag_300s": Feature(
        "(sub (corr_300s return_1s (lag_1s leader_return_1s)) (corr_300s leader_return_1s (lag_1s return_1s)))",
        "-2 to 2", "whether the leader goes first (positive) or the symbol", "after Lo, MacKinlay 1990",
    ),
    **{
        f"leader_return_bps_{w}": Feature(
            f"(mul 1e4 {_leaders(f'(delta_{w} log_mid)')})", "bps", f"return of the leader in {w}"
        )
        for w in ("1s", "10s")
    },
    **{
        f"leader_residual_bps_{w}": Feature(
            f"(mul 1e4 (sub (delta_{w} log_mid) (mul leader_beta {_leaders(f'(delta_{w} log_mid)')})))", "bps",
            f"return of the symbol in {w} beyond what its beta explains: below 0 it lags a rise",
        )
        for w in ("1s", "10s")
    },
    "leader_ofi_5s": Feature(_leaders("ofi_5s"), "deviations of a bar", "order flow imbalance of the leader", _CCZ),
    "leader_trade_imbalance_5s": Feature(
        _leaders("trade_imbalance_5s"), "-1 to 1", "share bought less sold by takers of the leader"
    ),
    "leader_volatility_ratio_300s": Feature(
        f"(ratio (std_300s bar_return_bps) {_leaders('(std_300s bar_return_bps)')})", "ratio",
        "volatility of the symbol in that of the leader",
    ),
}  # fmt: skip

SETS: Final = {"cross": _CROSS}
