"""The kernels' cache: what a kernel calls is part of what it is."""

import subprocess
import sys
from pathlib import Path

from core.kernels import ROOT, cache_folder, digest

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
kernels.cache_folder.__wrapped__.__defaults__ = kernels.Path({root}), kernels.Path({root}, "cache")
from rules.grid import grid
print(grid(1))
"""


def write(root: Path, step: int) -> None:
    (root / "rules").mkdir(exist_ok=True)
    (root / "rules" / "rule.py").write_text(RULE.format(step=step))
    (root / "rules" / "grid.py").write_text(GRID)


def asked(root: Path) -> str:
    code = ASK.format(paths=[str(root), str(ROOT)], root=repr(str(root)))
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_a_cached_kernel_follows_a_change_of_what_it_calls(tmp_path: Path) -> None:
    write(tmp_path, step=1)
    assert asked(tmp_path) == "20"
    before = {path.name for path in (tmp_path / "cache").iterdir()}
    write(tmp_path, step=2)
    assert asked(tmp_path) == "30"
    after = {path.name for path in (tmp_path / "cache").iterdir()}
    assert len(before) == len(after) == 2
    assert not before & after, "what was cached of the old text is removed"


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


def test_kernels_of_the_project_have_a_folder_each() -> None:
    folders = [cache_folder(ROOT / name) for name in ("labels/grid.py", "labels/fills.py")]
    assert [folder.name.partition("-")[0] for folder in folders] == ["labels.grid", "labels.fills"]
