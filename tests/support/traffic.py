"""Traces of a made-up shop as SDKs record them, with faults in some: seeded, as lines of OTLP JSON.

Every call is a client's span and, in another service, a server's. Durations are lognormal, some calls are made now and then only,
one answers from a cache or not, and one is retried. A faulty trace has one fault, at an operation chosen by chance.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

SERVER, CLIENT = 2, 3
FAULTS = ("slow", "network", "error", "missing", "unexpected")


@dataclass(frozen=True)
class Operation:
    """own: median of what it takes itself, in ms. spread: sigma of its logarithm. calls: what it calls, and how often."""

    service: str
    name: str
    own: float
    spread: float = 0.3
    calls: tuple[tuple[Operation, float], ...] = ()
    at_once: bool = False
    slow_share: float = 0.0  # misses of a cache, ten times as slow


CATALOG = Operation("catalog", "GET /items/{id}", 2.0, 0.4, ((Operation("items-db", "SELECT items", 0.8, 0.5), 1.0),))
PRICES = Operation("prices", "GET /prices", 0.4, 0.4, slow_share=0.2)
STOCK = Operation("stock", "GET /stock/{id}", 1.0, 0.3, ((Operation("cache", "GET", 0.05, 0.3), 1.0),))
PAYMENT = Operation("payment", "POST /charges", 20.0, 0.5, ((Operation("bank", "POST /authorize", 60.0, 0.4), 1.0),))
MAIL = Operation("mail", "POST /mails", 5.0, 0.6)
ADS = Operation("ads", "GET /ads", 3.0, 0.8)
ROOTS = (
    (Operation("shop", "GET /", 3.0, 0.3, ((CATALOG, 1.0), (ADS, 0.7), (PRICES, 1.0)), at_once=True), 0.6),
    (Operation("shop", "GET /items/{id}", 2.0, 0.3, ((CATALOG, 1.0), (PRICES, 1.0), (STOCK, 0.9))), 0.3),
    (Operation("shop", "POST /orders", 4.0, 0.3, ((STOCK, 1.0), (PAYMENT, 1.0), (MAIL, 0.95))), 0.1),
)


@dataclass
class Recording:
    """lines: OTLP JSON. faults: of trace ids, by the kind. durations: of spans in ms, by kind of operation, for baselines."""

    lines: list[str] = field(default_factory=list)
    faults: dict[str, str] = field(default_factory=dict)
    traces: list[list[dict[str, Any]]] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(f"{line}\n" for line in self.lines)


def record(
    count: int, seed: int, share: float = 0.0, severity: float = 3.0, faults: Sequence[str] = FAULTS
) -> Recording:
    """share: of the traces that have a fault. severity: how many times as long what is slow takes."""
    random = np.random.default_rng(seed)
    recording = Recording()
    for number in range(count):
        trace = _Trace(random, 1_700_000_000_000_000_000 + number * 10_000_000, severity)
        root = ROOTS[random.choice(len(ROOTS), p=[weight for _, weight in ROOTS])][0]
        if random.random() < share:
            trace.fault = str(random.choice(list(faults)))
            trace.target = trace.choose(root)
            recording.faults[trace.id] = trace.fault
        trace.serve(root, "", trace.start)
        recording.traces.append(trace.spans)
        recording.lines.append(_line(trace.spans))
    return recording


class _Trace:
    def __init__(self, random: np.random.Generator, start: int, severity: float) -> None:
        self._random, self.start, self._severity = random, start, severity
        self.id = random.bytes(16).hex()
        self.fault = ""
        self.target: Operation | None = None
        self.spans: list[dict[str, Any]] = []

    def choose(self, root: Operation) -> Operation:
        """An operation at which the fault shows: one that is always called, that calls if a call is to be missed, and that takes
        long enough for somebody to feel it if it is slow."""
        found = [op for op in _always(root) if self.fault != "missing" or op.calls]
        if self.fault == "slow":
            found = [op for op in found if op.own >= 1]
        if self.fault == "network":
            found = found[1:]  # somebody has to call it
        return found[self._random.integers(len(found))]

    def serve(self, operation: Operation, parent: str, start: int) -> int:
        """Add the span of a server and all below it; returns its end."""
        span = self._add(operation.service, operation.name, SERVER, parent, start)
        here = operation is self.target
        failed = here and self.fault == "error"
        own = operation.own * float(self._random.lognormal(0, operation.spread)) * 1e6
        if operation.slow_share and self._random.random() < operation.slow_share:
            own *= 10
        if here and self.fault == "slow":
            own *= self._severity
        calls = [call for call, share in operation.calls if self._random.random() < share]
        if here and self.fault == "missing":
            calls = calls[1:]
        if here and self.fault == "unexpected":
            calls = [*calls, Operation("ledger", "POST /entries", operation.own / 4)]
        now = end = start + int(own / 2)
        for call in () if failed else calls:
            end = max(end, self._call(operation, call, span["spanId"], now))
            now = now if operation.at_once else end
        span["end"] = end + int(own / 2)
        span["error"] = failed or self._random.random() < 0.002
        return int(span["end"])

    def _call(self, caller: Operation, operation: Operation, parent: str, start: int) -> int:
        span = self._add(caller.service, operation.name.split(" ")[0], CLIENT, parent, start)
        span["port"] = 8000 + len(operation.service)
        network = 0.15e6 * float(self._random.lognormal(0, 0.3))
        if operation is self.target and self.fault == "network":
            network += 2e6 * self._severity
        end = self.serve(operation, span["spanId"], start + int(network / 2))
        span["end"] = end + int(network / 2)
        return int(span["end"])

    def _add(self, service: str, name: str, kind: int, parent: str, start: int) -> dict[str, Any]:
        span = {"service": service, "name": name, "kind": kind, "parent": parent, "start": start, "end": start}
        span |= {"spanId": self._random.bytes(8).hex(), "traceId": self.id, "error": False}
        self.spans.append(span)
        return span


def _always(operation: Operation) -> Iterator[Operation]:
    yield operation
    for call, share in operation.calls:
        if share == 1.0:
            yield from _always(call)


def _line(spans: Sequence[dict[str, Any]]) -> str:
    by_service: dict[str, list[dict[str, Any]]] = {}
    for span in spans:
        by_service.setdefault(span["service"], []).append(_json(span))
    resources = [
        {
            "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": service}}]},
            "scopeSpans": [{"scope": {"name": "shop"}, "spans": members}],
        }
        for service, members in by_service.items()
    ]
    return json.dumps({"resourceSpans": resources})


def _json(span: dict[str, Any]) -> dict[str, Any]:
    found = {
        "traceId": span["traceId"],
        "spanId": span["spanId"],
        "parentSpanId": span["parent"],
        "name": span["name"],
        "kind": span["kind"],
        "startTimeUnixNano": str(span["start"]),
        "endTimeUnixNano": str(span["end"]),
        "attributes": [{"key": "http.request.method", "value": {"stringValue": "GET"}}],
    }
    if "port" in span:
        found["attributes"].append({"key": "server.port", "value": {"intValue": str(span["port"])}})
    if span["error"]:
        found["status"] = {"code": 2}
    return found
