"""The requests of a queue that wait to be sent: one by one in their order, or joined to batches of one signal."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from threading import Event
from typing import Protocol, Self

from ..pipeline.component import Outcome
from ..pipeline.otlp import DEFAULT_MAX_BYTES
from ..pipeline.storage import Entry
from .items import Items
from .queue_settings import BatchSettings


@dataclass(slots=True, eq=False)
class Request:
    """count: items in it. size: what it takes of the queue, in the unit of the sizer. payload: absent while it is in a
    storage. since: when it came (``time.monotonic``). result: what became of it, for whoever waits for that."""

    items: Items
    count: int
    size: int
    length: int
    payload: bytes | None
    since: float
    entry: Entry | None = None
    result: Result | None = None

    def wait_for_result(self) -> Outcome:
        """If it has one that can be waited for; else it is as good as taken."""
        if self.result is None:
            return Outcome.TAKEN
        self.result.known.wait()
        return self.result.outcome


@dataclass(slots=True, eq=False)
class Result:
    outcome: Outcome = Outcome.TAKEN
    known: Event = field(default_factory=Event)

    def set(self, outcome: Outcome) -> None:
        if not self.known.is_set():
            self.outcome = outcome
            self.known.set()


@dataclass(slots=True, eq=False)
class Delivery:
    """What is sent at once: a request, or several that are one behind the other."""

    requests: list[Request]
    items: Items
    payload: bytes
    count: int

    @classmethod
    def of(cls, requests: list[Request]) -> Self:
        """From here on it has their payloads."""
        first = requests[0]
        if len(requests) == 1:
            return cls(requests, first.items, first.payload or b"", first.count)
        joined = b"".join(request.payload or b"" for request in requests)
        for request in requests:
            request.payload = None
        return cls(requests, first.items, joined, sum(request.count for request in requests))

    def report(self, outcome: Outcome) -> None:
        """To those who wait for what becomes of it."""
        for request in self.requests:
            if request.result is not None:
                request.result.set(outcome)


class Waiting(Protocol):
    """Not safe from several threads."""

    def add(self, requests: Iterable[Request]) -> None: ...

    def take(self, now: float, at_once: bool) -> list[Request]:
        """Those that are sent next; none if none is due yet. at_once: all are."""

    def wait(self, now: float) -> float | None:
        """Seconds until ``take`` may have some without another ``add``; None: never."""

    def deliveries(self) -> int:
        """How many there are to be sent, about."""

    def clear(self) -> None: ...


class OneByOne:
    def __init__(self) -> None:
        self._requests: deque[Request] = deque()

    def add(self, requests: Iterable[Request]) -> None:
        self._requests.extend(requests)

    def take(self, now: float, at_once: bool) -> list[Request]:
        return [self._requests.popleft()] if self._requests else []

    def wait(self, now: float) -> float | None:
        return None

    def deliveries(self) -> int:
        return len(self._requests)

    def clear(self) -> None:
        self._requests.clear()


@dataclass(slots=True)
class _Line:
    """Of one signal. size: of all in it, in the unit of the batch."""

    requests: deque[Request] = field(default_factory=deque)
    size: int = 0
    length: int = 0


class Joined:
    def __init__(self, settings: BatchSettings) -> None:
        self._settings = settings
        self._lines: dict[Items, _Line] = {}

    def add(self, requests: Iterable[Request]) -> None:
        for request in requests:
            line = self._lines.setdefault(request.items, _Line())
            line.requests.append(request)
            line.size += self._size(request)
            line.length += request.length

    def take(self, now: float, at_once: bool) -> list[Request]:
        due = [line for line in self._lines.values() if line.requests and (at_once or self._due(line) <= now)]
        if not due:
            return []
        line = min(due, key=lambda line: line.requests[0].since)
        return self._batch(line)

    def wait(self, now: float) -> float | None:
        due = min((self._due(line) for line in self._lines.values() if line.requests), default=None)
        return None if due is None else max(0.0, due - now)

    def deliveries(self) -> int:
        return sum(1 + line.size // max(1, self._settings.min_size) for line in self._lines.values() if line.requests)

    def clear(self) -> None:
        self._lines.clear()

    def _size(self, request: Request) -> int:
        return self._settings.size_of(request.count, request.length)

    def _due(self, line: _Line) -> float:
        full = line.size >= self._settings.min_size or line.length >= DEFAULT_MAX_BYTES
        return -math.inf if full else line.requests[0].since + self._settings.flush_timeout

    def _batch(self, line: _Line) -> list[Request]:
        """Enough of them for a batch, and as many as one may have."""
        settings = self._settings
        taken: list[Request] = []
        size = length = 0
        while line.requests and (not taken or size < settings.min_size):
            request = line.requests[0]
            larger, longer = size + self._size(request), length + request.length
            if taken and (0 < settings.max_size < larger or longer > settings.max_bytes):
                break
            taken.append(line.requests.popleft())
            size, length = larger, longer
        line.size -= size
        line.length -= length
        return taken
