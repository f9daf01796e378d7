"""The metrics of exchanges and connections, as a receiver in this process counts them: each look when a test wants it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from wirespan.pipeline.counters import Counters
from wirespan.pipeline.encoded import EncodedBatch
from wirespan.receiver.edge_reporter import EdgeReporter
from wirespan.receiver.kernel.session import KernelSession, KernelSettings
from wirespan.receiver.sampling import Sampling

SECOND = 1_000_000_000
RING = 1 << 20


@dataclass(frozen=True)
class Point:
    """value: of a sum; of a histogram its count, and `total` the sum of its durations in s."""

    metric: str
    pid: int
    attributes: Mapping[str, Any]
    value: float
    total: float = 0.0


class Metrics:
    """Of series of each process (``edges: instance``)."""

    def __init__(self, session: KernelSession, counters: Counters) -> None:
        self.session = session
        self.counters = counters
        self._batches: list[EncodedBatch] = []
        source = session.edges, session.tcp, session.edge_names
        self.reporter = EdgeReporter(*source, counters, "instance", 3600.0, self._batches.append, dict)

    def points(self, metric: str) -> list[Point]:
        """As they are now."""
        self._batches.clear()
        self.reporter._look()
        found = [point for batch in self._batches for point in points_of(batch)]
        return [point for point in found if point.metric == metric]

    def value(self, metric: str, pid: int, **attributes: str | int) -> float:
        """Of the points of a process that have these attributes (``_`` for ``.``), the sum; 0 if there are none."""
        wanted = {name.replace("_", "."): value for name, value in attributes.items()}
        return sum(
            point.value
            for point in self.points(metric)
            if point.pid == pid and wanted.items() <= point.attributes.items()
        )


def points_of(batch: EncodedBatch) -> Iterator[Point]:
    for resource_metrics in ExportMetricsServiceRequest.FromString(batch.data).resource_metrics:
        pid = {one.key: one.value.int_value for one in resource_metrics.resource.attributes}.get("process.pid", 0)
        for metric in resource_metrics.scope_metrics[0].metrics:
            for number in metric.sum.data_points:
                value = number.as_double if number.HasField("as_double") else number.as_int
                yield Point(metric.name, pid, _attributes(number), value)
            for histogram in metric.exponential_histogram.data_points:
                yield Point(metric.name, pid, _attributes(histogram), histogram.count, histogram.sum)


@contextmanager
def counting(*ports: int, memory: int = 16 << 20) -> Iterator[Metrics]:
    """A receiver that counts; of these server ports, or all."""
    counters = Counters()
    settings = KernelSettings(
        ports=frozenset(ports) if ports else None,
        by_process=False,
        payload=False,
        sampling=Sampling(0.0),
        settle_ns=SECOND,
        request_timeout_ns=30 * SECOND,
        udp_timeout_ns=5 * SECOND,
        exchanges_size=RING,
        long_exchanges_size=RING,
        segments_size=RING,
        id_key=None,
        edges_memory=memory,
    )
    session = KernelSession(settings, counters)
    try:
        yield Metrics(session, counters)
    finally:
        session.close()


def _attributes(point: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in point.attributes}
