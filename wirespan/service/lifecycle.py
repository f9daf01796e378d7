"""A run, from the first component's start to the exit status.

The main thread starts everything and then waits on a queue for a reason to stop, or to take another configuration: see
:mod:`.reasons`. However a run ends, the kernel detaches our programs with the process; the orderly way is for the data: receivers
drain, then exporters flush, all by one deadline.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue

from .. import __version__
from ..pipeline.component import StartError
from ..pipeline.counters import Counters
from .allocator import return_freed_memory
from .config import Configuration
from .own_cost import OwnCost
from .reasons import FAILED, RELOAD, reasons
from .service import CannotGoOn, Service
from .status import Status
from .status_socket import StatusSocket
from .telemetry import Telemetry
from .watchdog import watched

READY = "Everything is ready. Begin running and processing data."

#: Below the 10 s that docker gives between SIGTERM and SIGKILL, own telemetry included; Kubernetes gives 30.
SHUTDOWN_SECONDS = 7.0
_SUMMARY_SECONDS = 60.0
#: A process that was stopped and continued may get its signal in another thread, which does not wake the main one.
_SIGNAL_SECONDS = 0.5

logger = logging.getLogger(__name__)


def run(
    configuration: Configuration,
    file: str,
    reason: str | None = None,
    read: Callable[[], Configuration] | None = None,
) -> int:
    """Run until a signal or a failure. Returns the exit status: 0, or 1 if something failed.

    file: where the configuration was read from, for the log. reason: why, if the user did not choose it. read: reads it again,
    when SIGHUP comes. Call it from the main thread: it handles SIGTERM, SIGINT and SIGHUP. A second SIGINT ends the process at
    once.
    """
    counters = Counters()
    telemetry = Telemetry(counters)
    telemetry.log(configuration.telemetry.logs)
    return_freed_memory()
    for warning in configuration.warnings:
        logger.warning(str(warning))
    logger.info("Starting wirespan", extra={"version": __version__, "pid": os.getpid()})
    logger.info("Configuration read", extra={"file": file} | ({"reason": reason} if reason else {}))
    service = Service(configuration, counters, telemetry)
    told = Status(service, file, counters)
    queue: SimpleQueue[int] = SimpleQueue()
    with reasons(queue), _told(told):
        try:
            telemetry.follow(configuration.telemetry)
        except StartError as error:
            logger.error(str(error))
            return FAILED
        status = _run(service, OwnCost(counters), queue, told, read or (lambda: configuration))
        telemetry.stop()
        while not queue.empty():  # a thread may have failed while others were flushing
            status = max(status, queue.get())
        return status


def _run(
    service: Service, cost: OwnCost, queue: SimpleQueue[int], told: Status, read: Callable[[], Configuration]
) -> int:
    try:
        service.start()
        told.state = "running"
        logger.info(READY)
        logger.info("Watching", extra=service.facts())
        while (status := _wait(service, cost, queue)) == RELOAD:
            told.state = "reloading"
            _reload(service, read)
            told.state = "running"
    except StartError as error:
        logger.error(str(error))
        if _watches(service.configuration):
            _log_missing_requirements()
        status = FAILED
    except CannotGoOn as error:
        logger.error("Neither the new configuration can run nor the one before", extra={"error": str(error)})
        status = FAILED
    except Exception:
        logger.exception("wirespan failed; this is a bug in it")
        status = FAILED
    if not service.made:
        return status
    told.state = "stopping"
    clean = _shutdown(service)
    if service.received:
        _log_identities(service, logging.INFO)
    return status if clean else FAILED


def _wait(service: Service, cost: OwnCost, queue: SimpleQueue[int]) -> int:
    """The exit status, once there is a reason to stop, or RELOAD; until then a summary every minute, and at debug level the
    identity."""
    while True:
        try:
            return queue.get(timeout=_SIGNAL_SECONDS)
        except Empty:
            if cost.seconds >= _SUMMARY_SECONDS:
                logger.info("The last minute", extra=service.tally.fields() | cost.fields())
                _log_identities(service, logging.DEBUG)


def _reload(service: Service, read: Callable[[], Configuration]) -> None:
    logger.info("SIGHUP: reading the configuration again")
    if service.reload(read) == "replaced":
        logger.info("Watching", extra=service.facts())


def _shutdown(service: Service) -> bool:
    logger.info("Shutting down", extra={"deadline_seconds": SHUTDOWN_SECONDS})
    with watched(SHUTDOWN_SECONDS):
        return service.shutdown(time.monotonic() + SHUTDOWN_SECONDS)


def _log_identities(service: Service, level: int) -> None:
    if logger.isEnabledFor(level):
        for identity in service.identities():
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
