"""The Prometheus endpoint of a live capture, on loopback: `http://127.0.0.1:<capture.metrics_port>/metrics`.

Metrics are made when they are asked for, from the monitor's counts: between scrapes they cost nothing.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from core.errors import StageError
from core.units import NS_PER_S
from ingest.clock_check import Clocks
from ingest.monitor import QUANTILES, Monitor, StreamStatus, by_table

_LOOPBACK: Final = "127.0.0.1"
_STREAM: Final = ("venue", "table", "symbol")
_MS_PER_S: Final = 1_000.0


class CaptureMetrics(Collector):
    """What a scrape gets. `trouble` says why rows cannot be written, `clocks` what the clocks' last check found."""

    def __init__(self, monitor: Monitor, trouble: Callable[[], str], clocks: Callable[[], Clocks | None]) -> None:
        self._monitor = monitor
        self._trouble = trouble
        self._clocks = clocks

    def collect(self) -> Iterable[Metric]:
        yield from self._connections()
        yield from self._streams(self._monitor.streams())
        yield from _latencies(self._monitor.streams(by_table))
        yield _gauge("write_trouble", "1 while rows cannot be written.", [((), float(bool(self._trouble())))])
        yield from _clock_metrics(self._clocks())

    def _connections(self) -> Iterable[Metric]:
        seen = list(enumerate(self._monitor.connections()))
        for name, about, field in (
            ("frames", "Frames received.", "frames"),
            ("undecoded", "Frames that did not decode.", "undecoded"),
            ("reconnects", "Connections made again after one was lost.", "reconnects"),
            ("rotations", "Connections replaced by another one, with an overlap.", "rotations"),
            ("refilled_trades", "Trades that a stream left out, fetched by REST.", "refilled"),
            ("pauses", "Times that reading stopped because writing was behind.", "pauses"),
        ):
            rows = [((each.venue, str(place)), float(getattr(each, field))) for place, each in seen]
            yield _counter(name, about, rows, ("venue", "connection"))

    def _streams(self, streams: list[StreamStatus]) -> Iterable[Metric]:
        yield _counter("rows", "Rows on disk.", [(each.key, float(each.rows)) for each in streams], _STREAM)
        yield _counter("gaps", "Rows in the table gaps.", [(each.key, float(each.gaps)) for each in streams], _STREAM)
        ages = [(each.key, each.asked_s if each.age_s is None else each.age_s) for each in streams]
        about = "Since the last row on disk was received, or since the stream was asked for."
        yield _gauge("last_message_age_seconds", about, ages, _STREAM)


def _latencies(tables: list[StreamStatus]) -> Iterable[Metric]:
    for name, about, field in (
        ("latency_seconds", "Receive time less the venue's, over one to two minutes.", "latency_ms"),
        ("excess_latency_seconds", "Latency above the venue's least: free of clock skew.", "excess_ms"),
    ):
        rows = [
            ((each.key.venue, each.key.table, str(quantile)), value / _MS_PER_S)
            for each in tables
            for quantile, value in zip(QUANTILES, getattr(each, field) or (), strict=False)
        ]
        yield _gauge(name, about, rows, ("venue", "table", "quantile"))


def _clock_metrics(clocks: Clocks | None) -> Iterable[Metric]:
    if clocks is None:
        return
    if clocks.kernel is not None:
        synchronised = float(clocks.kernel.synchronised)
        yield _gauge("clock_synchronised", "1 if the kernel's clock is synchronised.", [((), synchronised)])
    offsets = [((each.venue,), each.offset_ns / NS_PER_S) for each in clocks.venues if not each.problem]
    yield _gauge("clock_offset_seconds", "The venue's clock less ours.", offsets, ("venue",))


def _counter(name: str, about: str, rows: list[tuple[Any, float]], labels: tuple[str, ...]) -> Metric:
    metric = CounterMetricFamily(f"capture_{name}", about, labels=labels)
    for values, figure in rows:
        metric.add_metric(values, figure)
    return metric


def _gauge(name: str, about: str, rows: list[tuple[Any, float]], labels: tuple[str, ...] = ()) -> Metric:
    metric = GaugeMetricFamily(f"capture_{name}", about, labels=labels)
    for values, figure in rows:
        metric.add_metric(values, figure)
    return metric


@contextmanager
def served(metrics: CaptureMetrics, port: int) -> Iterator[None]:
    """Serve the metrics while the context is open; port 0: do not. Raises StageError if the port is taken."""
    if not port:
        yield
        return
    registry = CollectorRegistry()
    registry.register(metrics)
    ProcessCollector(registry=registry)  # memory, processor time, open files
    try:
        server, thread = start_http_server(port, _LOOPBACK, registry)
    except OSError as error:
        raise StageError(
            f"capture.metrics_port: cannot listen on {_LOOPBACK}:{port}: {error}: choose another"
        ) from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
