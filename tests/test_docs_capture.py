"""docs/capture.md against the code: settings, metrics and events that it names are there, and none is left out."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import asdict

from core import schema
from core.config import DEFAULT_SYMBOLS, Capture, Faults, load
from core.servers import local_hosts
from ingest.clock_check import Clocks, KernelClock
from ingest.monitor import Monitor
from ingest.prometheus import CaptureMetrics

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def text() -> str:
    return (ROOT / "docs" / "capture.md").read_text()


def test_settings_that_are_named_exist_and_the_example_is_a_configuration(text: str, tmp_path: Path) -> None:
    named = set(re.findall(r"`capture\.(\w+)`", text)) - {"lock", "service", "cron"}
    assert named
    assert named <= set(Capture.__struct_fields__)
    (example,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "pipeline.toml").write_text(example)
    assert load(root=tmp_path).capture.metrics_port == 9464


def test_the_local_exchange_and_its_capture_are_given_one_file_and_one_port(text: str, tmp_path: Path) -> None:
    (file,) = re.findall(r"<<'END'\n(.*?)\nEND\n", text, re.DOTALL)
    (port,) = re.findall(r"exchange_server --wall --port (\d+) --config local.toml\n", text)
    (tmp_path / "local.toml").write_text(file)
    config = load("local.toml", root=tmp_path)
    assert config.faults != Faults()
    venues = {name.partition(":")[0] for name in DEFAULT_SYMBOLS}
    for name, url in asdict(config.capture.hosts).items():
        assert (url == getattr(local_hosts(f"127.0.0.1:{port}"), name)) == (name.rpartition("_")[0] in venues)


def test_venues_that_get_no_bars_are_named(text: str) -> None:
    (paragraph,) = re.findall(r"Inverse contracts \((.*?)\)", text)
    assert set(re.findall(r"`(\w+)`", paragraph)) == schema.INVERSE


def test_metrics_are_named_as_they_are_served(text: str) -> None:
    log: Any = SimpleNamespace(write=lambda *_, **__: None)
    clocks = Clocks(KernelClock(True, 0, 0, 0), [])
    served = {
        metric.name + ("_total" if metric.type == "counter" else "")
        for metric in CaptureMetrics(Monitor(log), lambda: "", lambda: clocks).collect()
    }
    table = text.partition("| metric |")[2].partition("Worth an alert")[0]
    assert set(re.findall(r"`(capture_\w+)`", table)) == served


def test_events_are_named_as_they_are_logged(text: str) -> None:
    (paragraph,) = re.findall(r"Events of the log: (.*?)\n\n", text, re.DOTALL)
    code = "".join((ROOT / "ingest" / name).read_text() for name in ("live_capture.py", "monitor.py"))
    logged = set(re.findall(r'(?:log\.write|_sum_up)\((?:session, )?"(\w+)"', code))
    logged |= set(re.findall(r'"\w+": "(\w+)"', re.findall(r"_NEWS: Final = (\{.*?\})", code)[0]))
    assert set(re.findall(r"`(\w+)`", paragraph)) == logged
