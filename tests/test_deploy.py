"""The systemd unit and the cron line: understood by systemd, and commands that our own command line takes."""

import configparser
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
INSTALLED = "/opt/research-pipeline"


def unit_text() -> str:
    return (ROOT / "deploy" / "capture.service").read_text()


def service() -> dict[str, str]:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(unit_text())
    return dict(parser["Service"])


def arguments_of(command: str) -> list[str]:
    """The arguments behind `python .../run_pipeline.py` of a command line."""
    words = shlex.split(command)
    assert words[0].endswith(".venv/bin/python")
    assert words[1] == f"{INSTALLED}/run_pipeline.py"
    return words[2:]


def run(arguments: list[str], data: Path, *more: str) -> subprocess.CompletedProcess[str]:
    place = arguments.index("--data-dir") + 1
    command = [sys.executable, str(ROOT / "run_pipeline.py"), *arguments[:place], str(data), *arguments[place + 1 :]]
    return subprocess.run([*command, *more], cwd="/", capture_output=True, text=True, timeout=180)


def test_the_unit_starts_again_and_ends_capture_as_it_wants_to_be_ended() -> None:
    found = service()
    assert (found["Restart"], found["KillSignal"]) == ("always", "SIGTERM")
    assert "adjtimex" in found["SystemCallFilter"]
    assert found["NoNewPrivileges"] == "true"


def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    text = unit_text().replace(f"{INSTALLED}/.venv/bin/python", sys.executable).replace(INSTALLED, str(ROOT))
    unit = tmp_path / "capture.service"
    unit.write_text(text.replace("User=capture", "User=root"))
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=180)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_units_command_is_a_capture_that_only_lacks_a_venue(tmp_path: Path) -> None:
    arguments = arguments_of(service()["ExecStart"])
    assert arguments[:5] == ["capture", "--source", "live", "--duration", "forever"]
    hosts = ["--set", "capture.hosts.binance_um_ws=ws://127.0.0.1:9", "--set", "symbols=binance_um:BTCUSDT"]
    done = run(arguments, tmp_path, *hosts, "--set", "capture.metrics_port=0")
    assert done.returncode == 1
    assert "cannot connect to ws://127.0.0.1:9" in done.stderr


def test_the_cron_line_is_a_nightly_that_only_lacks_data(tmp_path: Path) -> None:
    (line,) = [line for line in (ROOT / "deploy" / "capture.cron").read_text().splitlines() if not line.startswith("#")]
    times, command = line.split()[:5], line.split("&&")[1]
    assert len(times) == 5
    done = run(arguments_of(command), tmp_path)
    assert done.returncode == 1
    assert "run_pipeline.py capture" in done.stderr
