"""Follows the objects of one kind: lists them, then watches them from the version that the list was of.

A watch that ends, or breaks, goes on from the last version that was seen, which bookmarks move on where nothing happens. A
version that is too old (410) means to list anew; what is not listed any more is gone. What fails is tried again after a
wait that doubles, with jitter, so that a thousand agents do not come back at once.

Only a list, an event or a bookmark is news: a connection over which nothing comes may lead nowhere. So a watch that is
silent for longer than bookmarks take is given up and begun anew, and ``last_news`` says since when nothing is known.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from threading import Event, Lock, Thread
from typing import Any, Final, Protocol

from ...pipeline.counters import Counters
from ...pipeline.defects import report_defect
from ...pipeline.scheduling import schedule_as_batch
from .api_server import Answer, ApiError, ApiServer
from .json_stream import MalformedAnswer, events, items_of_list

logger = logging.getLogger(__name__)

#: seconds that a watch may last; a random one between, so that not all end at once
_WATCH_SECONDS: Final = (300, 600)
_LIST_SILENCE: Final = 60.0
_FIRST_WAIT: Final = 0.5
_LONGEST_WAIT: Final = 30.0
_LOG_INTERVAL: Final = 60.0
_DENIED: Final = (401, 403)


class Sink(Protocol):
    """Told of objects, as JSON has them, from the reflector's thread. after: last news before this list, monotonic s."""

    def listing(self) -> None: ...

    def put(self, item: dict[str, Any]) -> None: ...

    def remove(self, item: dict[str, Any]) -> None: ...

    def listed(self, unknown_seconds: float) -> None:
        """All there are have been put since ``listing``. unknown_seconds: for so long nothing had been known before."""


class Reflector:
    """path: of the objects, such as ``/api/v1/pods``. silence: seconds without news after which a watch is begun anew."""

    def __init__(
        self,
        server: ApiServer,
        path: str,
        selectors: Mapping[str, str],
        sink: Sink,
        silence: float,
        counters: Counters,
        processor: str,
    ) -> None:
        self._server, self._path, self._selectors, self._sink = server, path, dict(selectors), sink
        self._silence = silence
        self._counters, self._processor = counters, processor
        self._version: str | None = None  # None: list before watching
        self._listed_version = "0"  # of the server's cache, whatever it has
        self._stopping = Event()
        self.synced = Event()
        self.last_news = time.monotonic()
        self._wait = _FIRST_WAIT
        self._next_log = 0.0
        self._lock = Lock()  # guards the answer being read, against stop
        self._answer: Answer | None = None
        self._thread = Thread(target=self._run, name=f"{processor} {path}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, seconds: float) -> None:
        self._stopping.set()
        with self._lock:
            if self._answer is not None:
                with suppress(Exception):  # whatever state the connection is in
                    self._answer.abort()
        if self._thread.is_alive():
            self._thread.join(seconds)

    def _run(self) -> None:
        schedule_as_batch()
        while not self._stopping.is_set():
            try:
                if self._version is None:
                    self._list()
                self._watch()
            except Exception as error:
                if not self._stopping.is_set():
                    self._stopping.wait(self._after(error))

    def _after(self, error: Exception) -> float:
        """Seconds to wait after this error."""
        if isinstance(error, ApiError) and error.gone:
            self._count("gone")
            self._version, self._listed_version = None, ""
        elif isinstance(error, MalformedAnswer | ApiError) or _is_of_network(error):
            self._count(_reason(error))
            self._log(error)
            self._version = None if isinstance(error, MalformedAnswer) else self._version
        else:
            self._count("defect")
            report_defect("Objects of Kubernetes could not be followed. Listing them anew.", self._processor, error)
            self._version = None
        wait, self._wait = self._wait, min(2 * self._wait, _LONGEST_WAIT)
        return max(wait * random.uniform(0.5, 1.5), error.retry_after if isinstance(error, ApiError) else 0.0)

    def _list(self) -> None:
        self._sink.listing()
        parameters = {**self._selectors, "limit": "500"}
        if self._listed_version:
            parameters["resourceVersion"] = self._listed_version
            if self._listed_version != "0":
                parameters["resourceVersionMatch"] = "NotOlderThan"
        while True:
            version, following = self._page(parameters)
            if not following:
                break
            parameters = {**self._selectors, "limit": "500", "continue": following}
        self._sink.listed(time.monotonic() - self.last_news if self.synced.is_set() else 0.0)
        self._version = self._listed_version = version
        self._news()
        self.synced.set()

    def _page(self, parameters: Mapping[str, str]) -> tuple[str, str]:
        """Take in a page; its version, and where the next one begins, if there is one."""
        rest: dict[str, Any] = {}
        with _Reading(self, self._server.get(self._path, parameters, _LIST_SILENCE, compressed=True)) as answer:
            for item in items_of_list(answer.chunks(), rest):
                self._hand_over(self._sink.put, item)
        metadata = rest.get("metadata")
        if not isinstance(metadata, dict) or not isinstance(metadata.get("resourceVersion"), str):
            raise MalformedAnswer("a list without a resourceVersion")
        return metadata["resourceVersion"], str(metadata.get("continue") or "")

    def _watch(self) -> None:
        parameters = {
            **self._selectors,
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": str(self._version),
            "timeoutSeconds": str(random.randint(*_WATCH_SECONDS)),
        }
        began = time.monotonic()
        with _Reading(self, self._server.get(self._path, parameters, self._silence)) as answer:
            for event in events(answer.chunks()):
                self._take(event)
        if time.monotonic() - began < _FIRST_WAIT:  # a server, or a proxy, that ends every watch at once
            self._stopping.wait(_FIRST_WAIT)

    def _take(self, event: dict[str, Any]) -> None:
        item = event["object"]
        match event.get("type"):
            case "ADDED" | "MODIFIED":
                self._hand_over(self._sink.put, item)
            case "DELETED":
                self._hand_over(self._sink.remove, item)
            case "ERROR":
                raise ApiError(int(item.get("code") or 0), str(item.get("reason") or "error in a watch"))
            case _:  # a bookmark is a version alone
                pass
        metadata = item.get("metadata")
        if isinstance(metadata, dict) and isinstance(metadata.get("resourceVersion"), str):
            self._version = self._listed_version = metadata["resourceVersion"]
        self._news()

    def _hand_over(self, take: Callable[[dict[str, Any]], None], item: dict[str, Any]) -> None:
        """A defect costs this object."""
        try:
            take(item)
        except Exception as defect:
            self._count("defect")
            report_defect(
                "An object of Kubernetes could not be taken in. Going on without it.", self._processor, defect
            )

    def _news(self) -> None:
        self.last_news = time.monotonic()
        self._wait = _FIRST_WAIT

    def _count(self, reason: str) -> None:
        self._counters.add(
            "wirespan.k8s.watch.interruptions", 1, processor=self._processor, path=self._path, reason=reason
        )

    def _log(self, error: Exception) -> None:
        now = time.monotonic()
        if now < self._next_log:
            return
        self._next_log = now + _LOG_INTERVAL
        logger.warning(
            "The API server of Kubernetes is not followed. Trying again; what is new meanwhile is not known.",
            extra={"processor": self._processor, "path": self._path, "problem": _problem(error)},
        )


class _Reading:
    """An answer that is being read, so that ``stop`` can end that."""

    def __init__(self, reflector: Reflector, answer: Answer) -> None:
        self._reflector, self._answer = reflector, answer

    def __enter__(self) -> Answer:
        reflector = self._reflector
        with reflector._lock:
            reflector._answer = self._answer
        if reflector._stopping.is_set():
            self._answer.abort()
        return self._answer

    def __exit__(self, *_: object) -> None:
        with self._reflector._lock:
            self._reflector._answer = None
        self._answer.close()


def _is_of_network(error: Exception) -> bool:
    from urllib3.exceptions import HTTPError

    return isinstance(error, HTTPError | OSError)


def _reason(error: Exception) -> str:
    if not isinstance(error, ApiError):
        return "network"
    return "denied" if error.code in _DENIED else "refused"


def _problem(error: Exception) -> str:
    if isinstance(error, ApiError) and error.code in _DENIED:
        return f"{error}: the agent may not list and watch this; see docs/kubernetes.md"
    return f"{type(error).__name__}: {error}"
