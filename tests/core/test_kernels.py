"""The kernels' cache: what a kernel calls is part of what it is."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from core import kernels
from core.kernels import OVERTAKEN, ROOT, UNWRITABLE, cache_folder, digest

RULE = """
from core.kernels import njit

@njit(cache=True)
def rule(x):
    return x + {step}
"""
GRID = """
from core.kernels import njit
from rules.rule import rule

@njit(cache=True)
def grid(x):
    return rule(x) * 10
"""
ASK = """
import sys
sys.path[:0] = {paths}
import core.kernels as kernels
root = kernels.Path({root})
kernels.cache_folder.__wrapped__.__defaults__ = root, root / "cache"
{meanwhile}
from rules.grid import grid
print(grid(1))
"""
UPDATED_MEANWHILE = """
import os, rules.rule
text = root / "rules/rule.py"
(root / "new").write_text(text.read_text().replace("x + 1", "x + 2"))
os.utime(root / "new", ns=(0, 0))  # a copy that keeps the times
os.replace(root / "new", text)
"""


def write(root: Path, step: int) -> None:
    (root / "rules").mkdir(exist_ok=True)
    (root / "rules" / "rule.py").write_text(RULE.format(step=step))
    (root / "rules" / "grid.py").write_text(GRID)


def asked(root: Path, meanwhile: str = "") -> str:
    """What a process of its own gets from the grid, and what it was told."""
    code = ASK.format(paths=[str(root), str(ROOT)], root=repr(str(root)), meanwhile=meanwhile)
    env = {"HOME": str(root / "home"), "PATH": os.environ["PATH"]}
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=env)
    return ran.stdout + ran.stderr


def test_a_cached_kernel_follows_a_change_of_what_it_calls(tmp_path: Path) -> None:
    write(tmp_path, step=1)
    assert asked(tmp_path) == "20\n"
    before = {path.name for path in (tmp_path / "cache").iterdir()}
    write(tmp_path, step=2)
    assert asked(tmp_path) == "30\n"
    after = {path.name for path in (tmp_path / "cache").iterdir()}
    assert len(before) == len(after) == 2
    assert not before & after, "what was cached of the old text is removed"


def test_a_cache_that_cannot_be_written_to_is_said_once_and_no_other_place_is_taken(tmp_path: Path) -> None:
    write(tmp_path, step=1)
    (tmp_path / "cache").touch()
    told = UNWRITABLE.format(tmp_path / "cache") + "\n"
    assert asked(tmp_path) == "20\n" + told
    write(tmp_path, step=2)
    (tmp_path / "home").touch()  # no place of numba's own choice is left: none is looked for
    assert asked(tmp_path) == "30\n" + told
    assert not list(tmp_path.rglob("*.nbi"))


def test_what_a_process_loaded_before_an_update_is_not_cached_under_the_new_text(tmp_path: Path) -> None:
    write(tmp_path, step=1)
    assert asked(tmp_path, UPDATED_MEANWHILE) == f"20\n{OVERTAKEN}\n"
    assert asked(tmp_path) == "30\n"


def test_a_process_knows_when_it_began() -> None:
    code = "import core.kernels as kernels, time; print(kernels._STARTED_NS, time.time_ns())"
    before_ns = time.time_ns()
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT)
    began_ns, imported_ns = map(int, ran.stdout.split())
    assert before_ns <= began_ns < imported_ns


def test_a_digest_covers_what_is_imported_at_any_remove(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("import b\n")
    (tmp_path / "b.py").write_text("from c import d\nimport a\n")
    (tmp_path / "c.py").write_text("from rules import e, f as g\nfrom rules import (\n    h,\n)\n")
    (tmp_path / "rules").mkdir()
    for name in "efh":
        (tmp_path / "rules" / f"{name}.py").write_text("d = 1\n")
    (tmp_path / "unrelated.py").write_text("1\n")
    first = digest(tmp_path / "a.py", tmp_path)
    (tmp_path / "unrelated.py").write_text("2\n")
    assert digest(tmp_path / "a.py", tmp_path) == first
    for changed in ("c.py", "rules/e.py", "rules/f.py", "rules/h.py"):
        before = digest(tmp_path / "a.py", tmp_path)
        with (tmp_path / changed).open("a") as text:
            text.write("d = 2\n")
        assert digest(tmp_path / "a.py", tmp_path) != before, changed


def test_kernels_of_the_project_have_a_folder_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_STARTED_NS", time.time_ns())  # also while the files are being edited
    folders = [cache_folder(ROOT / name, ROOT, tmp_path) for name in ("labels/grid.py", "labels/fills.py")]
    assert [folder.name.partition("-")[0] for folder in folders if folder] == ["labels.grid", "labels.fills"]
