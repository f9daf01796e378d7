"""A backend that is killed and started again at random, while a Collector sends to it through the agent.

The backend writes down what it takes before it answers, so what was acknowledged is known even if it is killed in the middle.
Every item has a number of its own.
"""

from __future__ import annotations

import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Any

import grpc

import sink
from support import servers
from support.agent import Agent
from support.exchanges import accounts
from support.foreign_batches import REQUESTS, Request, every_log, every_span
from support.metric_batches import points, points_of
from support.own_metrics import OwnMetrics, own_metrics
from support.processes import Process, free_port
from support.receiving import METHOD_OF
from support.waiting import wait_until
from wirespan.pipeline.component import Signal

#: seconds that it is there; that it is not, with the time that a start takes
_UP, _DOWN = (0.1, 2.0), (0.1, 0.9)
_BETWEEN_REQUESTS = 0.005
_LAST_WAIT = 60.0
_ITEMS: dict[Signal, str] = {"traces": "spans", "metrics": "metric_points", "logs": "log_records"}


@dataclass
class Outcome:
    """sent: items of each signal. arrived: how often which did. counted: by the agent, by name. said: its log."""

    sent: int = 0
    outages: int = 0
    arrived: dict[Signal, Counter[int]] = field(default_factory=lambda: {name: Counter() for name in REQUESTS})
    counted: dict[str, int] = field(default_factory=dict)
    said: str = ""

    @property
    def twice(self) -> dict[Signal, int]:
        return {name: found.total() - len(found) for name, found in self.arrived.items()}

    def flaws(self) -> list[str]:
        """What is not as promised, for people."""
        found = [f"an outage in vain: {self.outages}"] if self.outages < 2 else []
        for name, arrived in self.arrived.items():
            lost = set(range(self.sent)) - set(arrived)
            if lost:
                found.append(f"{len(lost)} {_ITEMS[name]} of {self.sent} lost")
            if self.twice[name] > self.sent / 5:
                found.append(f"{self.twice[name]} {_ITEMS[name]} came again, more than was under way")
            # What came twice because the Collector did not wait for an answer, the agent sent twice.
            if not self.sent <= self.counted[f"otelcol_exporter_sent_{_ITEMS[name]}"] <= arrived.total():
                found.append(f"of {self.sent} {_ITEMS[name]} the agent counts others as sent: {self.counted}")
        found += [f"{name} is {value}" for name, value in self.counted.items() if value and "_sent_" not in name]
        return found + ["a traceback in the log"] * ("Traceback" in self.said)

    def __str__(self) -> str:
        again = ", ".join(f"{count} {_ITEMS[name]}" for name, count in self.twice.items())
        return f"{self.outages} outages; {self.sent:,} items sent of each signal; came again: {again}"


def outages(seconds: float, folder: Path, seed: int = 5) -> Outcome:
    """Send for so long, and then wait until all is there."""
    found, chance = Outcome(), random.Random(seed)
    ports = (free_port(), free_port())
    with ExitStack() as stack:
        metrics = stack.enter_context(own_metrics())
        port = free_port()
        agent = stack.enter_context(Agent(_configuration(port, ports, metrics), folder))
        front = stack.enter_context(servers.relay(folder / "front", "otlp_grpc", port))
        stop_sending = stack.enter_context(_sending(front.grpc_port, found))
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with _backend(ports, folder, found):
                time.sleep(chance.uniform(*_UP))
            found.outages += 1
            time.sleep(chance.uniform(*_DOWN))
        with _backend(ports, folder, found) as arriving:
            stop_sending()
            with suppress(AssertionError):  # else some were lost, which the outcome says
                wait_until("all items", lambda: _all_are_there(found, arriving()), _LAST_WAIT)
            agent.stop()
        found.counted, found.said = _counted(agent, metrics), agent.log
    return found


def _configuration(port: int, backend: tuple[int, int], metrics: OwnMetrics) -> dict[str, Any]:
    """With and without a batch, by gRPC and by HTTP."""
    endpoints = [f"http://127.0.0.1:{number}" for number in backend]
    settings = {
        "sending_queue": {"queue_size": 5, "block_on_overflow": True},
        "retry_on_failure": {"initial_interval": "20ms", "max_interval": "100ms"},
    }

    def pipeline(exporter: str, *processors: str) -> dict[str, list[str]]:
        return {"receivers": ["otlp"], "processors": list(processors), "exporters": [exporter]}

    return {
        "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": f"127.0.0.1:{port}"}}}},
        "processors": {"batch": {"send_batch_size": 20, "timeout": "20ms"}},
        "exporters": {
            "otlp_grpc": {"endpoint": endpoints[0], **settings},
            "otlp_http": {"endpoint": endpoints[1], **settings},
        },
        "service": {
            "pipelines": {
                "traces": pipeline("otlp_grpc", "batch"),
                "metrics": pipeline("otlp_http", "batch"),
                "logs": pipeline("otlp_grpc"),
            },
            "telemetry": {"logs": {"encoding": "json"}, "metrics": metrics.telemetry},
        },
    }


@contextmanager
def _sending(port: int, found: Outcome) -> Iterator[Callable[[], None]]:
    """To the Collector; yields what ends it. As an SDK does, again what it has no room for."""
    stop, given_up = Event(), Event()

    def send() -> None:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            export = {name: channel.unary_unary(method) for name, method in METHOD_OF.items()}
            while not stop.wait(_BETWEEN_REQUESTS):
                for name, request in _numbered(found.sent).items():
                    while not _is_taken(export[name], request) and not given_up.is_set():
                        time.sleep(_BETWEEN_REQUESTS)
                found.sent += 1

    def end() -> None:
        stop.set()
        thread.join()

    thread = Thread(target=send)
    thread.start()
    try:
        yield end
    finally:
        given_up.set()
        end()


def _is_taken(export: Callable[..., bytes], request: Request) -> bool:
    try:
        export(request.SerializeToString(), timeout=10)
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.UNAVAILABLE:  # type: ignore[attr-defined]  # of a call it is one
            raise
        return False
    return True


def _numbered(number: int) -> dict[Signal, Request]:
    spans, logs = every_span(1), every_log(1)
    spans.resource_spans[0].scope_spans[0].spans[0].span_id = (number + 1).to_bytes(8, "big")
    logs.resource_logs[0].scope_logs[0].log_records[0].body.int_value = number
    metrics = REQUESTS["metrics"].FromString(points_of(1).data)
    metrics.resource_metrics[0].scope_metrics[0].metrics[0].sum.data_points[0].as_int = number
    return {"traces": spans, "metrics": metrics, "logs": logs}


def _numbers(request: Any) -> Iterator[int]:
    for group in getattr(request, "resource_spans", ()):
        for scope in group.scope_spans:
            yield from (int.from_bytes(span.span_id, "big") - 1 for span in scope.spans)
    for group in getattr(request, "resource_logs", ()):
        for scope in group.scope_logs:
            yield from (record.body.int_value for record in scope.log_records)
    if isinstance(request, REQUESTS["metrics"]):
        yield from (point.as_int for _, _, point in points(request))  # type: ignore[attr-defined]


@contextmanager
def _backend(
    ports: tuple[int, int], folder: Path, found: Outcome
) -> Iterator[Callable[[], dict[Signal, Counter[int]]]]:
    """Killed at the end of the block; then what it took is in ``found``. Yields what tells it before."""
    kept = folder / f"kept-{found.outages}"
    command = [sys.executable, sink.__file__, "--grpc", str(ports[0]), "--http", str(ports[1]), "--keep", kept]

    def arrived() -> dict[Signal, Counter[int]]:
        numbers: dict[Signal, Counter[int]] = {name: Counter() for name in REQUESTS}
        for name, payload in sink.kept(kept):
            numbers[name].update(_numbers(REQUESTS[name].FromString(payload)))
        return numbers

    with Process("backend", command, folder) as process:
        process.wait_for_log("ready")
        yield arrived
        process.stop(signal.SIGKILL)
    for name, numbers in arrived().items():
        found.arrived[name].update(numbers)


def _all_are_there(found: Outcome, last: dict[Signal, Counter[int]]) -> bool:
    return all(len(found.arrived[name].keys() | last[name].keys()) >= found.sent for name in REQUESTS)


def _counted(agent: Agent, metrics: OwnMetrics) -> dict[str, int]:
    """What the agent says of all that it sent, and of what it did not."""
    (account,) = accounts(agent)
    exporters: dict[Signal, str] = {"traces": "otlp_grpc", "metrics": "otlp_http", "logs": "otlp_grpc"}
    names = [
        (f"otelcol_exporter_{what}_{_ITEMS[signal]}", exporter)
        for signal, exporter in exporters.items()
        for what in ("sent", "send_failed", "enqueue_failed")
    ]
    counted = {name: metrics.value(name, exporter=exporter) for name, exporter in names}
    return counted | {"unaccounted": account["unaccounted"], "dropped spans": sum(account["dropped"].values())}
