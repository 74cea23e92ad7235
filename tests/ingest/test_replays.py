"""Every recorded folder, through the replay server, the capture and the quality stage."""

from collections import Counter
from pathlib import Path

import pytest

from benchmarks.replay_recorded import decoded_samples, replayed

FOLDERS = {  # frames, rows, compared best prices; test_recorded.py counts apart from the decoders what frames hold
    "binance_20240808": (446_313, 2_488_140, 5_193),
    "binance_altcoins_2021": (1_810, 17_776, 76),
    "binance_spot_nexousdt_20240723": (114_078, 183_333, 12_198),
    "bybit_20260809": (2_548, 19_352, 0),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FOLDERS)
def test_a_recording_loses_nothing_doubles_nothing_and_its_books_are_the_venues(
    market_data: Path, tmp_path: Path, name: str
) -> None:
    frames, rows, compared = FOLDERS[name]
    found = replayed(market_data / "raw" / name, tmp_path)
    assert (found.frames, sum(found.rows.values())) == (frames, rows)
    assert (found.undecoded, found.gaps, found.doubled, found.crossed) == (0, 0, 0, 0)
    assert (found.compared, found.agreed) == (compared, compared)


def test_single_messages_of_every_known_venue_decode_one_by_one(market_data: Path) -> None:
    kinds = dict(decoded_samples(market_data / "raw" / "wire_samples"))
    total = sum(kinds.values(), Counter())
    assert total["undecoded"] == 0
    assert kinds["binance-delivery"]["Liquidation"] == kinds["bybit"]["Liquidation"] == 1
    assert all(set(found) == {"no decoder"} for name, found in kinds.items() if name.startswith(("okex", "deribit")))
