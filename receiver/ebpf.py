"""The ``ebpf`` receiver: every exchange on every socket of this machine, seen in the kernel.

``start`` loads the programs of ``bpf/``, tells them the configuration and attaches them. One thread then drains the
rings on a timer (waking user space for each record is what makes agents slow), turns what it finds into batches and
hands them on. Twice per ``settle`` it lets the kernel finish exchanges that have gone quiet. ``shutdown`` detaches
first, so that the last drain really is the last.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field, field_validator, model_validator

from ..pipeline.component import ComponentConfig, Context, EncodedConsumer, Factory, Outputs
from ..pipeline.duration import Duration, within
from ..pipeline.scheduling import Yielding
from ..pipeline.spans import SpanBatch
from .budget import Pacer
from .cgroup_costs import CgroupCosts, path_and_service
from .cpu_budget import CpuBudget, Steps
from .edges import Level
from .instrumentation import Mode
from .kernel.library import BpfError
from .kernel.programs import Attached
from .kernel.session import KernelSession, KernelSettings, loaded
from .machine import suggestion, survey
from .observer import Observer
from .process_selection import ProcessRules
from .protocols.capturing import CREDENTIAL_HEADERS, Capture
from .protocols.redis_text import QueryText
from .routes import ROUTES_LIMIT, checked_pattern
from .sampling import Sampling
from .selection import Select, conflict

if TYPE_CHECKING:
    from .edge_reporter import EdgeReporter

logger = logging.getLogger(__name__)

#: records taken from a ring at once: bounds the memory and the delay of one batch
_BATCH = 4_096
#: While no more than a sixteenth of a ring waits, the drain gives way to what it watches, and takes less at once: a
#: thread that gives way on cores that are never idle takes a third of a second for each millisecond of work.
_LITTLE = 1 / 16
_LITTLE_BATCH = 512
#: without an exchange for so long after the start, the log says how to make one
_QUIET_SECONDS = 10.0
#: seconds between two warnings of the same
_WARNING_INTERVAL = 10.0


class Spans(ComponentConfig):
    """Which exchanges become spans, the same ones at both ends.

    max_per_second: a budget, shared fairly by the ports of servers. probability: the share that is kept instead. keep_errors:
    what failed has a part of the budget of its own. slow: so has what takes longer; None: learned. With a probability these two
    hold only if they are given: what they name is then kept beyond it.
    """

    probability: float | None = Field(default=None, ge=0.0, le=1.0)
    max_per_second: float = Field(default=100.0, ge=1.0, le=1e7)
    keep_errors: bool = True
    slow: Annotated[Duration, within("1us", "1h")] | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> Spans:
        if self.probability is not None and "max_per_second" in self.model_fields_set:
            raise ValueError("probability and max_per_second exclude each other: leave one of them out")
        return self

    def sampling(self) -> Sampling:
        if self.probability is None:
            return Sampling(max_per_second=self.max_per_second, keep_errors=self.keep_errors, slow=self.slow)
        keep_errors = self.keep_errors and "keep_errors" in self.model_fields_set
        return Sampling(self.probability, keep_errors=keep_errors, slow=self.slow)


class Metrics(ComponentConfig):
    """What is counted of all exchanges, if the receiver is in a metrics pipeline.

    interval: between two looks; 1 s to 1 h. edges: whether series are of services or of each process. max_memory: bytes of
        the kernel for them; 1 MiB to 4 GiB.
    """

    interval: Annotated[Duration, within("1s", "1h")] = 15.0
    edges: Level = "workload"
    max_memory: int = Field(default=64 << 20, ge=1 << 20, le=4 << 30)


def _header_name(value: str) -> str:
    name = value.lower()
    if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9a-z-]+", name):
        raise ValueError(f'"{value}" is no name of a header')
    if name in CREDENTIAL_HEADERS:
        raise ValueError(f'"{value}" is a credential, which is never captured')
    return name


def _network(value: str) -> str:
    try:
        network, host = ipaddress.ip_network(value, strict=False), ipaddress.ip_address(value.partition("/")[0])
    except ValueError:
        raise ValueError(f'"{value}" is no network like "10.0.0.0/8" or "fd00::/8"') from None
    if host != network.network_address:
        raise ValueError(f'"{value}" is a host in a network; did you mean "{network}"?')
    return value


HeaderName: TypeAlias = Annotated[str, AfterValidator(_header_name)]


class CaptureSettings(ComponentConfig):
    """What is emitted of messages beyond what is by default. query_strings: of URLs, without the values of credentials.
    request_headers, response_headers: names, in any case. db_query_text: of Redis commands their keys, or all literals."""

    query_strings: bool = False
    request_headers: tuple[HeaderName, ...] = ()
    response_headers: tuple[HeaderName, ...] = ()
    db_query_text: QueryText = QueryText.NONE

    def rules(self) -> Capture:
        return Capture(self.query_strings, self.request_headers, self.response_headers, self.db_query_text)


class HttpSettings(ComponentConfig):
    """routes: patterns of paths; the first one that the path of a server's request matches is its ``http.route``."""

    routes: Annotated[tuple[Annotated[str, AfterValidator(checked_pattern)], ...], Field(max_length=ROUTES_LIMIT)] = ()


class Rings(ComponentConfig):
    """Bytes of each ring between the kernel and this process; powers of two."""

    exchanges: int = 32 << 20
    long_exchanges: int = 32 << 20
    segments: int = 16 << 20

    @field_validator("exchanges", "long_exchanges", "segments")
    @classmethod
    def _power_of_two(cls, value: int) -> int:
        if value < 65_536 or value > 1 << 30 or value & (value - 1):
            raise ValueError("must be a power of two from 65536 to 1073741824")
        return value


class EbpfConfig(ComponentConfig):
    """Configuration of the receiver.

    payload: ``none`` reads no byte of what travels: neither the applications' memory nor packets. Every exchange is then
        that of an unknown protocol.
    settle: a response that has been quiet for this long is complete; 10 ms to 60 s.
    request_timeout: a request without an answer for this long is an error; 10 ms to 1 h.
    udp_timeout: a request over UDP without an answer for this long is an error; 10 ms to 1 h.
    drain_interval: how often the rings are looked at; 1 ms to 1 s.
    assume_peer_observed: networks whose hosts run wirespan too, so that a server span may name its client's span
        as parent. Clients on this machine are known without it.
    id_key: 16 bytes in hex, the same on all agents whose spans are to join.
    messages: what a server sends unasked is counted, or each a span of its own.
    instrumented: of processes that trace themselves ``skip`` their own sides, or emit and mark ``both``.
    cpu_budget: cores that the agent may take; beyond, it does less. With ``spans.probability`` only if it is given.
    """

    select: Select = Select()
    spans: Spans = Spans()
    metrics: Metrics = Metrics()
    payload: Literal["heads", "none"] = "heads"
    capture: CaptureSettings = CaptureSettings()
    http: HttpSettings = HttpSettings()
    settle: Annotated[Duration, within("10ms", "60s")] = 1.0
    request_timeout: Annotated[Duration, within("10ms", "1h")] = 30.0
    udp_timeout: Annotated[Duration, within("10ms", "1h")] = 5.0
    drain_interval: Annotated[Duration, within("1ms", "1s")] = 0.2
    rings: Rings = Rings()
    assume_peer_observed: tuple[Annotated[str, AfterValidator(_network)], ...] = ()
    id_key: str | None = Field(default=None, pattern="^[0-9a-fA-F]{32}$")
    messages: Literal["count", "span"] = "count"
    instrumented: Mode = "skip"
    cpu_budget: float = Field(default=0.1, ge=0.001, le=1024.0)

    @model_validator(mode="after")
    def _something_to_capture_from(self) -> EbpfConfig:
        if self.payload == "none" and self.capture != CaptureSettings():
            raise ValueError("capture needs payload: heads, for none of the payload is read")
        if self.payload == "none" and self.http.routes:
            raise ValueError("http.routes needs payload: heads, for no path is read")
        return self

    @property
    def has_cpu_budget(self) -> bool:
        return self.spans.probability is None or "cpu_budget" in self.model_fields_set


class EbpfReceiver:
    """Drains the kernel's rings into ``outputs`` from a thread of its own."""

    def __init__(self, config: EbpfConfig, context: Context, outputs: Outputs) -> None:
        self._config = config
        self._context = context
        self._consumer = outputs.traces
        self._metrics = outputs.metrics
        self._reporter: EdgeReporter | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._settings = kernel_settings(config, with_metrics=outputs.metrics is not None)
        self._loaded: Attached | None = None
        self._session: KernelSession | None = None
        self._yielding: Yielding | None = None
        self._next_warning = 0.0
        self._quiet = threading.Timer(_QUIET_SECONDS, self._suggest)
        self._quiet.daemon = True

    def facts(self) -> dict[str, int]:
        machine = survey()
        return {
            "processes": machine.processes,
            "connections": machine.connections,
            "listening_ports": machine.listening_ports,
        }

    def prepare(self) -> None:
        """Load the programs: that takes seconds, and attaching them a tenth of one."""
        self._loaded = loaded(self._settings)

    def start(self) -> None:
        programs, self._loaded = self._loaded, None
        self._session = session = KernelSession(self._settings, self._context.counters, programs)
        networks = [ipaddress.ip_network(network) for network in self._config.assume_peer_observed]
        rules = ProcessRules(self._config.select)
        if self._metrics is not None:
            self._reporter = self._edge_reporter(session, self._metrics)
        observer = Observer(
            session,
            self._context.counters,
            networks,
            rules if rules.exist else None,
            self._config.capture.rules(),
            self._config.instrumented,
            self._reporter.count if self._reporter is not None else None,
            self._reporter.count_spans if self._reporter is not None else None,
            self._config.http.routes,
        )
        self._context.counters.gauge("wirespan.exchanges.in_flight", lambda: session.in_flight() + observer.waiting())
        name = f"drain {self._context.id}"
        self._thread = threading.Thread(target=self._run, args=(session, observer), name=name, daemon=True)
        self._thread.start()
        if self._reporter is not None:
            self._reporter.start()
        if not rules.exist:  # else what would be suggested may not be selected
            self._quiet.start()

    def shutdown(self, deadline: float) -> None:
        self._quiet.cancel()
        self._stopping.set()
        if self._yielding is not None and self._thread is not None and self._thread.is_alive():
            self._yielding.hurry()  # on cores that are never idle it would not be done by the deadline
        if self._thread is not None:
            self._thread.join(max(0.0, deadline - time.monotonic()))
            self._thread = None
        if self._session is not None:
            self._session.close()
            self._session = None
        if self._loaded is not None:
            self._loaded.close()
            self._loaded = None

    def _edge_reporter(self, session: KernelSession, metrics: EncodedConsumer) -> EdgeReporter:
        from .edge_reporter import EdgeReporter  # only now: it loads what only metrics need

        settings = self._config.metrics
        return EdgeReporter(
            session.edges,
            session.tcp,
            session.edge_names,
            self._context.counters,
            settings.edges,
            settings.interval,
            metrics.consume_encoded,
            session.cgroups.unwatched,
            session.sampling.active,
            self._consumer is not None,
        )

    def _suggest(self) -> None:
        """Once, if nothing was seen so far."""
        sums = self._context.counters.snapshot()
        if not any(sums[key] for key in sums if key[0] == "wirespan.exchanges.observed"):
            command = suggestion(self._config.select.watched_ports())
            logger.info("Nothing seen so far. In another terminal, try:", extra={"command": command})

    def _run(self, session: KernelSession, observer: Observer) -> None:
        try:
            self._observe(session, observer)
        except (BpfError, ValueError):
            if not session.closed:  # by a shutdown whose deadline was over
                raise

    def _observe(self, session: KernelSession, observer: Observer) -> None:
        yielding, pace = Yielding(), self._pacing(session, observer)
        self._yielding = yielding
        quiet_interval = self._config.settle / 2
        next_quiet = time.monotonic() + quiet_interval
        while not self._stopping.is_set():
            for follow in pace:  # at once: who gives way may wait for seconds
                follow()
            little = session.fullness() < _LITTLE
            yielding.give_way(little)
            full = self._drain(observer, _LITTLE_BATCH if little else _BATCH)
            yielding.give_way(False)
            if time.monotonic() >= next_quiet:
                self._finish_quiet(session)
                next_quiet = time.monotonic() + quiet_interval
            if not full:
                self._stopping.wait(self._config.drain_interval)
        session.detach()
        while self._drain(observer, _BATCH):
            pass
        self._consume(observer, observer.last())
        if self._reporter is not None:
            self._reporter.stop()

    def _pacing(self, session: KernelSession, observer: Observer) -> list[Callable[[], None]]:
        """What follows the load, and the agent's own cost."""
        pacer = None
        if session.policies is not None and session.sampling.budgeted:
            pacer = Pacer(session.sampling, session.policies, self._context.counters)
        pace = [pacer.pace] if pacer is not None else []
        if self._config.has_cpu_budget:
            reads = self._config.payload != "none"
            groups = CgroupCosts(session.cgroups, session.rejoin, partial(path_and_service, observer.processes))
            steps = Steps(pacer.limit if pacer is not None else None, session.read_payload if reads else None, groups)
            cpu = CpuBudget(self._config.cpu_budget, steps)
            self._context.counters.gauge("wirespan.degradation", lambda: cpu.degradation)
            pace.append(cpu.pace)
        return pace

    def _finish_quiet(self, session: KernelSession) -> None:
        """What this lets the kernel do, the next time does too, if memory or descriptors are short now."""
        try:
            session.finish_quiet()
            session.expire_requests()
            session.forget_datagrams()
        except BpfError as error:
            self._context.counters.add("wirespan.hooks.failed", 1, program="finish_quiet")
            if time.monotonic() >= self._next_warning:
                self._next_warning = time.monotonic() + _WARNING_INTERVAL
                logger.warning("Quiet exchanges could not be ended. Will try again.", extra={"error": str(error)})

    def _drain(self, observer: Observer, limit: int) -> bool:
        """Whether there was so much that the next drain should come at once."""
        batches, full = observer.drain(limit)
        self._consume(observer, batches)
        return full

    def _consume(self, observer: Observer, batches: list[SpanBatch]) -> None:
        for batch in batches:
            if len(batch) and self._consumer is not None:
                self._consumer.consume(batch)
            observer.handed_on(batch)


def kernel_settings(config: EbpfConfig, with_metrics: bool) -> KernelSettings:
    return KernelSettings(
        ports=None if config.select.every_port else frozenset(config.select.watched_ports()),
        by_process=ProcessRules(config.select).exist,
        payload=config.payload == "heads",
        sampling=config.spans.sampling(),
        settle_ns=int(config.settle * 1e9),
        request_timeout_ns=int(config.request_timeout * 1e9),
        udp_timeout_ns=int(config.udp_timeout * 1e9),
        exchanges_size=config.rings.exchanges,
        long_exchanges_size=config.rings.long_exchanges,
        segments_size=config.rings.segments,
        id_key=bytes.fromhex(config.id_key) if config.id_key else None,
        message_spans=config.messages == "span",
        edges_memory=config.metrics.max_memory if with_metrics else 0,
    )


def _conflict(one: EbpfConfig, other: EbpfConfig) -> str | None:
    return conflict(one.select, other.select)


FACTORY = Factory(
    "receiver",
    "ebpf",
    EbpfConfig,
    EbpfReceiver,
    conflict=_conflict,
    signals=frozenset({"traces", "metrics"}),
)
