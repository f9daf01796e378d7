"""A run, from the first component's start to the exit status.

The main thread starts everything and then waits on a queue for the reason to stop: a signal, or an exception that
left a thread. ``SimpleQueue`` because its ``put`` may be called from a signal handler, where ``Event.set`` can
deadlock with the ``wait`` it interrupts. However a run ends, the kernel detaches our programs with the process; the
orderly way is for the data: receivers drain, then exporters flush, all by one deadline.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from queue import Empty, SimpleQueue
from types import FrameType

from .. import __version__
from ..pipeline.component import Context, StartError
from ..pipeline.counters import Counters
from .allocator import return_freed_memory
from .config import Configuration
from .emitted import own_resource
from .graph import Graph
from .identity import identities
from .logs import log_to_stderr
from .own_cost import OwnCost, count_process
from .settings import TelemetrySettings
from .status import Status
from .status_socket import StatusSocket
from .tally import Tally

READY = "Everything is ready. Begin running and processing data."

#: Below the 10 s that docker gives between SIGTERM and SIGKILL, own telemetry included; Kubernetes gives 30.
SHUTDOWN_SECONDS = 7.0
_OWN_TELEMETRY_SECONDS = 1.5
#: How much longer than its deadline a component may take before the process ends without it.
_OVERTIME_SECONDS = 1.0
_SUMMARY_SECONDS = 60.0
#: A process that was stopped and continued may get its signal in another thread, which does not wake the main one.
_SIGNAL_SECONDS = 0.5

OK, FAILED = 0, 1
_KILLED_BY_SIGINT = 128 + signal.SIGINT

logger = logging.getLogger(__name__)


def run(configuration: Configuration, file: str, reason: str | None = None) -> int:
    """Run until a signal or a failure. Returns the exit status: 0, or 1 if something failed.

    file: where the configuration was read from, for the log. reason: why, if the user did not choose it.
    Call it from the main thread: it handles SIGTERM and SIGINT. A second SIGINT ends the process at once.
    """
    log_to_stderr(configuration.telemetry.logs)
    return_freed_memory()
    for warning in configuration.warnings:
        logger.warning(str(warning))
    logger.info("Starting wirespan", extra={"version": __version__, "pid": os.getpid()})
    logger.info("Configuration read", extra={"file": file} | ({"reason": reason} if reason else {}))
    counters = Counters()
    told = Status(configuration, file, counters)
    stops: SimpleQueue[int] = SimpleQueue()
    try:
        with _stop_reasons(stops), _own_telemetry(configuration.telemetry, counters), _told(told):
            status = _run(configuration, counters, stops, told)
            while not stops.empty():  # a thread may have failed while others were flushing
                status = max(status, stops.get())
            return status
    except StartError as error:
        logger.error(str(error))
        return FAILED


def _run(configuration: Configuration, counters: Counters, stops: SimpleQueue[int], told: Status) -> int:
    graph, tally = None, Tally()
    try:
        graph = Graph(configuration, counters, tally)
        graph.start()
        told.state = "running"
        logger.info(READY)
        logger.info("Watching", extra=graph.facts())
        status = _wait(configuration, counters, tally, stops)
    except StartError as error:
        logger.error(str(error))
        if _watches(configuration):
            _log_missing_requirements()
        status = FAILED
    except Exception:
        logger.exception("wirespan failed; this is a bug in it")
        status = FAILED
    if graph is None:
        return status
    told.state = "stopping"
    clean = _shutdown(graph)
    if graph.received:
        _log_identities(configuration, counters, logging.INFO)
    return status if clean else FAILED


def _wait(configuration: Configuration, counters: Counters, tally: Tally, stops: SimpleQueue[int]) -> int:
    """The exit status, once there is a reason to stop; until then a summary every minute, and at debug level the
    identity."""
    next_summary, cost = time.monotonic() + _SUMMARY_SECONDS, OwnCost(counters)
    while True:
        try:
            return stops.get(timeout=_SIGNAL_SECONDS)
        except Empty:
            if time.monotonic() >= next_summary:
                next_summary += _SUMMARY_SECONDS
                logger.info("The last minute", extra=tally.fields() | cost.fields())
                _log_identities(configuration, counters, logging.DEBUG)


def _shutdown(graph: Graph) -> bool:
    logger.info("Shutting down", extra={"deadline_seconds": SHUTDOWN_SECONDS})
    watchdog = threading.Timer(SHUTDOWN_SECONDS + _OVERTIME_SECONDS, _give_up)
    watchdog.daemon = True
    watchdog.start()
    clean = graph.shutdown(time.monotonic() + SHUTDOWN_SECONDS)
    watchdog.cancel()
    return clean


def _give_up() -> None:
    logger.error("A component did not stop in time; ending without it")
    logging.shutdown()
    os._exit(FAILED)


def _log_identities(configuration: Configuration, counters: Counters, level: int) -> None:
    if logger.isEnabledFor(level):
        for identity in identities(counters, configuration):
            logger.log(level, "exchanges", extra=identity.fields())


def _watches(configuration: Configuration) -> bool:
    """Whether a receiver runs that needs the kernel."""
    used = {receiver for pipeline in configuration.pipelines for receiver in pipeline.receivers}
    return any(configuration.components["receiver"][id_].factory.name == "ebpf" for id_ in used)


def _log_missing_requirements() -> None:
    """What cannot start usually lacks something of the machine: say what, and what to type."""
    from .check import Verdict, run_checks

    for finding in run_checks():
        if finding.verdict is Verdict.FAILED:
            extra = {"requirement": finding.requirement, "found": finding.found, "remedy": finding.remedy}
            logger.error("This machine lacks a requirement", extra=extra)


@contextmanager
def _own_telemetry(settings: TelemetrySettings, counters: Counters) -> Iterator[None]:
    """What is not configured costs no memory: only what is needed is imported."""
    count_process(counters)
    resource, metrics = own_resource(), settings.metrics
    with ExitStack() as running:
        if metrics.pulled:
            from .metrics_server import MetricsServer
            from .prometheus_text import PrometheusText

            texts = [(reader, PrometheusText(counters, reader, resource).text) for reader in metrics.pulled]
            context = Context("telemetry", counters)
            running.callback(MetricsServer(context, texts, wanted=not metrics.is_default).stop)
        if metrics.pushed or settings.logs.processors:
            from .own_telemetry import OwnTelemetry

            running.callback(OwnTelemetry(settings, counters, resource).shutdown, _OWN_TELEMETRY_SECONDS)
        yield


@contextmanager
def _told(status: Status) -> Iterator[None]:
    """Inside of the block ``wirespan status`` is answered, if that is possible."""
    try:
        socket = StatusSocket(status.read)
    except OSError as error:
        logger.debug("wirespan status will not find this agent", extra={"error": str(error)})
        yield
        return
    try:
        yield
    finally:
        socket.stop()


@contextmanager
def _stop_reasons(stops: SimpleQueue[int]) -> Iterator[None]:
    """Put the exit status into ``stops`` when a signal comes, or when a thread dies of an exception."""
    interrupts = 0

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal interrupts
        interrupts += number == signal.SIGINT
        if interrupts > 1:
            os._exit(_KILLED_BY_SIGINT)
        stops.put(OK)

    def on_dead_thread(dead: threading.ExceptHookArgs) -> None:
        name = dead.thread.name if dead.thread else "unknown"
        error = dead.exc_value or dead.exc_type()
        logger.error("A thread failed; stopping", exc_info=error, extra={"thread_name": name})
        stops.put(FAILED)

    handlers = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    thread_hook, threading.excepthook = threading.excepthook, on_dead_thread
    try:
        yield
    finally:
        threading.excepthook = thread_hook
        for number, handler in handlers.items():
            signal.signal(number, handler)
