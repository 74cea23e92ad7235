"""Fixtures shared by all tests."""

from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]
settings.register_profile("untimed", deadline=None)  # an example may wait for a busy machine, or for kernels
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def market_data() -> Path:
    """The folder of recorded market data; tests that need it are skipped where it is absent."""
    folder = ROOT.parent / "shared" / "market_data"
    if not folder.is_dir():
        pytest.skip(f"recorded market data is not at {folder}")
    return folder
