"""Looks at the kernel's edges from time to time, and hands on what their series say: a thread of its own, because a look at
10,000 edges takes longer than a ring may wait."""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from threading import Event, Lock, Thread
from typing import Final, Protocol

from ..pipeline.counters import Counters
from ..pipeline.encoded import EncodedBatch
from ..pipeline.scheduling import schedule_as_batch
from ..pipeline.spans import AttributeValue, Fragment, SpanBatch
from .coverage import Coverage
from .edge_groups import EdgeNames, Grouped, grouped, told
from .edge_metrics import add_exchanges, add_semantic
from .edges import EdgeAccounts, EdgeSource, Level, ResourceItems
from .kernel.cgroups import Unwatched
from .kernel.library import BpfError
from .metrics_request import MetricsRequest
from .open_connections import OpenConnections
from .process import ImageKey, ProcessTable, Resource
from .scopes import Records
from .span_metrics import SpanMetrics
from .tcp_metrics import add_open, add_tcp

logger = logging.getLogger(__name__)

#: attributes of a resource that tell services apart, but not the instances of one on a machine
_OF_WORKLOAD: Final = (
    "service.name",
    "service.namespace",
    "service.version",
    "deployment.environment.name",
    "host.name",
)
#: in Kubernetes containers are told apart, too: who owns a pod is not known here
_OF_POD: Final = ("k8s.pod.uid", "container.id", "wirespan.resource.inferred")
#: for ids derived from an inherent one, by the semantic conventions of service.instance.id
_INSTANCE_NAMESPACE: Final = uuid.UUID("4d63009a-8d0f-11ee-aad7-4c796ed8e320")
_WARNING_INTERVAL: Final = 60.0


def workload_of(resource: Resource) -> ResourceItems:
    """What the instances of a service on this machine have in common, with an id of its own: backends take series with the
    same service and instance for the same. In Kubernetes those of a container."""
    names = (*_OF_WORKLOAD, *_OF_POD) if "k8s.pod.uid" in resource else _OF_WORKLOAD
    common: dict[str, AttributeValue] = {name: resource[name] for name in names if name in resource}
    common["service.instance.id"] = str(uuid.uuid5(_INSTANCE_NAMESPACE, repr(sorted(common.items()))))
    return tuple(sorted(common.items()))


class TcpSource(EdgeSource, Protocol):
    """The kernel's counts of connections; see :class:`.kernel.edges.TcpMap`."""

    def open_connections(self) -> Records | None: ...


class EdgeReporter:
    """exchanges, tcp: what the kernel counts. interval: seconds. deliver: gets all series at each look. unwatched: control groups
    that are not watched. sampled: whether some
    exchanges become no span. exemplars: whether spans go up."""

    def __init__(
        self,
        exchanges: EdgeSource,
        tcp: TcpSource,
        names: EdgeNames,
        counters: Counters,
        level: Level,
        interval: float,
        deliver: Callable[[EncodedBatch], object],
        unwatched: Callable[[], Mapping[int, Unwatched]],
        sampled: bool = False,
        exemplars: bool = False,
    ) -> None:
        self._processes = ProcessTable(counters)
        self._level = level
        self._interval = interval
        self._deliver = deliver
        self._unwatched = unwatched
        self._counters = counters
        self._names = names
        start = time.time_ns()
        self._exchanges = EdgeAccounts(exchanges, names, self._describe, start)
        self._tcp_source = tcp
        self._tcp = EdgeAccounts(tcp, names, self._describe, start)
        self._coverage = Coverage()
        self._open = OpenConnections(names, self._describe)
        self._rest = workload_of({"service.name": "unknown_service", "host.name": os.uname().nodename})
        self._sampled, self._spans_go_up = sampled, exemplars
        self._spans = SpanMetrics(names, self._describe_span, self._rest, counters, start, exemplars)
        self._lock = Lock()  # guards the accounts and the processes; held for as long as a look takes
        self._paired: deque[Grouped] = deque()  # what the accounts are to be told yet
        self._spans_lock = Lock()  # held for a moment only: the drain's thread wants it for every batch
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="edges", daemon=True)
        self._next_warning = 0.0

    def count(self, records: Records, operations: Sequence[Fragment]) -> None:
        """Exchanges of TCP that the kernel does not count, in the drain's thread. operations: what is known of each by its
        protocol."""
        self._paired.append(grouped(records, [told(operation) for operation in operations], self._names))
        if self._lock.acquire(blocking=False):  # else there is a look, for which rings do not wait
            try:
                self._add_paired()
            finally:
                self._lock.release()

    def _add_paired(self) -> None:
        while self._paired:
            self._exchanges.add(self._paired.popleft())

    def count_spans(self, batch: SpanBatch, records: Records) -> None:
        """Spans that are emitted, and the records that they were made of, in the drain's thread."""
        with self._spans_lock:
            self._spans.count(batch, records)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """After the programs are detached: a last look."""
        self._stopping.set()
        self._thread.join()
        self._look()

    def _run(self) -> None:
        schedule_as_batch()
        while not self._stopping.wait(self._interval):
            self._look()

    def _look(self) -> None:
        """What cannot be read now is counted by the kernel all the same, and read the next time."""
        now = time.time_ns()
        with self._spans_lock:
            learned = self._spans.learned()
        with self._lock:
            for image, resource in learned.items():  # the process may have ended since
                self._processes.know(image, resource)
        try:
            connections = self._tcp_source.open_connections()
            unwatched = self._unwatched()
            with self._lock:
                self._exchanges.look(now)
                self._tcp.look(now)
                if connections is not None:
                    self._open.look(connections, now)
            with self._spans_lock:
                semantic, exemplars = self._spans.look(now)
        except BpfError as error:
            self._counters.add("wirespan.edges.failed", 1)
            if time.monotonic() >= self._next_warning:
                self._next_warning = time.monotonic() + _WARNING_INTERVAL
                logger.warning("The kernel's edges could not be read. Will try again.", extra={"error": str(error)})
            return
        request = MetricsRequest(now, self._rest)
        with self._lock:
            self._add_paired()
            series = list(self._exchanges.series())
            add_exchanges(request, series, exemplars)
            if self._spans_go_up:
                self._coverage.add(request, series)
                self._coverage.add_unwatched(request, unwatched, self._describe)
        add_tcp(request, self._tcp.series())
        add_open(request, self._open.counts())
        add_semantic(request, semantic, self._sampled)
        batch = request.batch()
        if len(batch):
            self._deliver(batch)
        with self._lock:
            self._processes.forget_ended_if_due()  # what a process has left behind was read just now

    def _describe(self, image: ImageKey) -> ResourceItems:
        if not image.tgid:  # the kernel could not tell
            return self._rest
        return self._items(self._processes.resource(*image))

    def _describe_span(self, image: ImageKey, resource: Resource) -> ResourceItems:
        return self._items(resource) if image.tgid else self._rest

    def _items(self, resource: Resource) -> ResourceItems:
        return workload_of(resource) if self._level == "workload" else tuple(sorted(resource.items()))
