"""The runner's process holds no training library."""

import subprocess
import sys

import pytest

from core.config import ROOT

TRAINING = ("sklearn", "lightgbm", "catboost", "shap", "onnx", "matplotlib")


@pytest.mark.parametrize("module", ["live.runner", "live.run_live", "live.session", "live.parity"])
def test_the_runner_imports_no_training_library(module: str) -> None:
    script = f"import sys, {module}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "onnxruntime" in loaded
    assert loaded.isdisjoint(TRAINING)
