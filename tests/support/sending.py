"""Clients that send spans by OTLP without end, and know which of them were acknowledged."""

from __future__ import annotations

import itertools
import threading
import time
from types import TracebackType
from typing import Final, Self

import grpc
import urllib3

from support.foreign_batches import every_span
from support.receiving import METHOD_OF

_PAUSE: Final = 0.02  # after a failure
_TIMEOUT: Final = 5.0


class Clients:
    """As a context manager they send; nothing is sent twice. protocol: ``grpc`` or ``http``."""

    def __init__(self, protocol: str, port: int, count: int = 4, spans: int = 20, pause: float = 0.0) -> None:
        self.acknowledged: set[bytes] = set()
        self.refused = 0
        self._protocol, self._port, self._pause = protocol, port, pause
        self._places = [f"span{number:04}".encode() for number in range(spans)]  # of ids, which are as long
        request = every_span(spans)
        for span, place in zip(request.resource_spans[0].scope_spans[0].spans, self._places, strict=True):
            span.span_id = place
        self._template = request.SerializeToString()
        self._numbers = itertools.count(1)
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(count)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        channel = grpc.insecure_channel(f"127.0.0.1:{self._port}", _RECONNECT) if self._protocol == "grpc" else None
        pool = urllib3.PoolManager()
        while not self._stopping.is_set():
            ids, body = self._request()
            taken = self._post(pool, body) if channel is None else self._call(channel, body)
            if taken:
                self.acknowledged.update(ids)
            else:
                self.refused += 1
            time.sleep(self._pause if taken else _PAUSE)
        if channel is not None:
            channel.close()

    def _request(self) -> tuple[list[bytes], bytes]:
        ids, body = [], self._template
        for place in self._places:
            ids.append(next(self._numbers).to_bytes(8, "big"))
            body = body.replace(place, ids[-1])
        return ids, body

    def _call(self, channel: grpc.Channel, body: bytes) -> bool:
        try:
            channel.unary_unary(METHOD_OF["traces"])(body, timeout=_TIMEOUT)
        except grpc.RpcError:
            return False
        return True

    def _post(self, pool: urllib3.PoolManager, body: bytes) -> bool:
        headers = {"Content-Type": "application/x-protobuf"}
        try:
            url = f"http://127.0.0.1:{self._port}/v1/traces"
            return pool.request("POST", url, body=body, headers=headers, timeout=_TIMEOUT, retries=False).status == 200
        except urllib3.exceptions.HTTPError:
            return False


#: back soon after the agent is
_RECONNECT: Final = (("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 100))
