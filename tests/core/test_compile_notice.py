"""Who waits for kernels is told once in a stage; who does not wait is told nothing."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from core import run_record
from core.compile_notice import MESSAGE, CompileNotice
from core.config import Config
from core.kernels import ROOT


def said_after(lengths_s: list[float], patience_s: float) -> list[str]:
    """What is told of compilations of some lengths, each with another inside."""
    said: list[str] = []
    notice = CompileNotice(patience_s, said.append)
    for length_s in lengths_s:
        notice.on_start(None)
        notice.on_start(None)
        time.sleep(length_s)
        notice.on_end(None)
        notice.on_end(None)
    time.sleep(0.05)
    return said


@pytest.mark.parametrize(
    ("lengths_s", "patience_s", "times"),
    [([0.4], 0.1, 1), ([0.15, 0.15, 0.15], 0.25, 1), ([0.0, 0.0, 0.0], 5.0, 0), ([0.4, 0.4], 0.1, 1), ([], 0.0, 0)],
)
def test_it_is_told_once_when_compilations_have_taken_long_together(
    lengths_s: list[float], patience_s: float, times: int
) -> None:
    assert said_after(lengths_s, patience_s) == [MESSAGE] * times


def test_who_waits_in_a_later_stage_is_told_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    notice = CompileNotice(0.05, said.append)
    monkeypatch.setattr(run_record, "NOTICE", notice)
    record = run_record.RunRecord(Config(data_dir=str(tmp_path)), Console(quiet=True))
    for name in ("bars", "features"):
        with record.stage(name):
            for _ in range(2):
                notice.on_start(None)
                time.sleep(0.2)
                notice.on_end(None)
    assert said == [MESSAGE] * 2


KERNEL = """
from core.compile_notice import NOTICE
NOTICE._left_s = 0.001
from core.kernels import njit

@njit(cache=True)
def grown(x):
    total = 0.0
    for k in range(3):
        total += x ** k
    return total
"""


def test_a_kernel_that_is_in_the_cache_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "kernel.py").write_text(KERNEL)
    code = f"import sys; sys.path[:0] = {[str(tmp_path), str(ROOT)]}; import kernel; print(kernel.grown(2.0))"
    env = {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PATH": ""}
    command = [sys.executable, "-c", code]
    cold, warm = (subprocess.run(command, capture_output=True, text=True, env=env, check=True) for _ in range(2))
    assert (cold.stdout, cold.stderr) == ("7.0\n", MESSAGE + "\n")
    assert (warm.stdout, warm.stderr) == ("7.0\n", "")
