"""Looks at the kernel's edges, and what is counted meanwhile; the kernel here has counted nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Thread

import numpy as np
import numpy.typing as npt

from support.edge_points import points_of
from support.edges import KEY, NAMES
from wirespan.pipeline.counters import Counters
from wirespan.pipeline.encoded import EncodedBatch
from wirespan.pipeline.spans import Fragment
from wirespan.receiver.edge_reporter import EdgeReporter, workload_of
from wirespan.receiver.histogram import SLOTS
from wirespan.receiver.kernel.edges import EXCHANGES, TCP, Counted, EdgeCounts
from wirespan.receiver.kernel.libbpf import BpfObject
from wirespan.receiver.kernel.session import object_path
from wirespan.receiver.scopes import Records

REDIS = Fragment("GET", (("network.protocol.name", "redis"),))


class Kernel:
    """meanwhile: done while edges are read."""

    key_dtype, capacity = KEY, 10

    def __init__(self, counted: Counted, meanwhile: Callable[[], None] = lambda: None) -> None:
        self.counted, self.meanwhile = counted, meanwhile

    def parts(self) -> Iterator[tuple[npt.NDArray[np.uint8], EdgeCounts]]:
        self.meanwhile()
        return iter(())

    def take(self, key: bytes) -> EdgeCounts | None:
        return None

    def overflow(self) -> EdgeCounts:
        sums, histograms = self.counted
        slots = np.zeros((1, len(histograms), SLOTS), np.uint32)
        return EdgeCounts(np.zeros((1, 16), np.uint8), np.zeros((1, len(sums)), np.uint64), slots)

    def open_connections(self) -> Records | None:
        return None


def exchange() -> Records:
    """One of a client."""
    with BpfObject.open(object_path()) as bpf_object:
        records = np.zeros(1, bpf_object.btf.dtype("exchange"))
    records["connection"]["role"], records["connection"]["remote_port"] = 1, 6379
    records["request_start"], records["response_end"] = 1_000, 2_000
    return records


def test_the_drain_does_not_wait_for_a_look_and_nothing_of_it_is_lost() -> None:
    waited: list[bool] = []
    batches: list[EncodedBatch] = []

    def drain() -> None:
        drain = Thread(target=reporter.count, args=(exchange(), [REDIS]), daemon=True)
        drain.start()
        drain.join(5)
        waited.append(drain.is_alive())

    kernel = Kernel(EXCHANGES, drain)
    reporter = EdgeReporter(kernel, Kernel(TCP), NAMES, Counters(), "workload", 3600.0, batches.append, dict)
    reporter.count(exchange(), [REDIS])
    reporter._look()
    assert waited == [False]
    assert [point.value for point in points_of(batches[-1]) if point.metric == "wirespan.exchange.duration"] == [2]
    reporter._look()
    assert [point.value for point in points_of(batches[-1]) if point.metric == "wirespan.exchange.duration"] == [3]


def test_the_instances_of_a_service_are_one_workload_but_in_kubernetes_each_container_is_one() -> None:
    process = {"service.name": "shop", "process.pid": 1, "host.name": "node", "container.id": "c1"}
    assert workload_of(process) == workload_of({**process, "process.pid": 2, "container.id": "c2"})
    first = {**process, "k8s.pod.uid": "u", "wirespan.resource.inferred": ("service.name",)}
    second = {**first, "container.id": "c2"}
    assert workload_of(first) == workload_of({**first, "process.pid": 2})
    assert workload_of(first) != workload_of(second)
    ids = [dict(workload_of(resource))["service.instance.id"] for resource in (process, first, second)]
    assert len(set(ids)) == 3
    assert dict(workload_of(first)).items() >= {("k8s.pod.uid", "u"), ("container.id", "c1")}
