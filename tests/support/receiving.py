"""The receiver ``otlp`` started for a test, what it hands on, and clients of it."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from support.processes import free_port
from wirespan.pipeline.component import ALL_SIGNALS, Context, Outcome, Outputs, Signal
from wirespan.pipeline.counters import Counters
from wirespan.pipeline.encoded import EncodedBatch
from wirespan.receiver.otlp.grpc_server import METHODS
from wirespan.receiver.otlp.receiver import FACTORY, OtlpReceiver

METHOD_OF: dict[Signal, str] = {signal: method for method, signal in METHODS.items()}


@dataclass
class Taking:
    """Takes batches, or answers as it is told."""

    outcome: Outcome = Outcome.TAKEN
    before: Callable[[], None] = lambda: None
    batches: list[EncodedBatch] = field(default_factory=list)

    def consume_encoded(self, batch: EncodedBatch) -> Outcome:
        self.before()
        self.batches.append(batch)
        return self.outcome


@dataclass(frozen=True)
class Response:
    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Receiving:
    receiver: OtlpReceiver
    taking: Taking
    counters: Counters
    grpc_port: int
    http_port: int

    def count(self, name: str, transport: str, **attributes: str) -> int:
        """Of ``otelcol_receiver_…``, or of a name of ours."""
        full = name if name.startswith("wirespan") else f"otelcol_receiver_{name}"
        key = tuple(sorted({"receiver": "under test", "transport": transport, **attributes}.items()))
        return self.counters.snapshot().get((full, key), 0)

    def refused_requests(self, transport: str, reason: str) -> int:
        return self.count("wirespan.receiver.requests.refused", transport, reason=reason)

    def post(
        self, path: str, body: bytes | Iterator[bytes], headers: Mapping[str, str] | None = None, method: str = "POST"
    ) -> Response:
        """headers: beside those of protobuf. What is iterated over is sent in chunks."""
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=10)
        given = {"Content-Type": "application/x-protobuf", **(headers or {})}
        try:
            connection.request(method, path, body, given, encode_chunked=not isinstance(body, bytes))
            answer = connection.getresponse()
            return Response(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def call(
        self,
        signal: Signal,
        request: bytes,
        compression: grpc.Compression | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> bytes:
        """By gRPC; raises grpc.RpcError."""
        with grpc.insecure_channel(f"127.0.0.1:{self.grpc_port}") as channel:
            given = tuple((metadata or {}).items())
            method = channel.unary_unary(METHOD_OF[signal])
            answer: bytes = method(request, timeout=10, compression=compression, metadata=given)
            return answer


@contextmanager
def receiving(
    taking: Taking | None = None,
    grpc_settings: Mapping[str, Any] | None = None,
    http_settings: Mapping[str, Any] | None = None,
    signals: frozenset[Signal] = ALL_SIGNALS,
    extensions: Mapping[str, Any] | None = None,
) -> Iterator[Receiving]:
    taking, counters = taking or Taking(), Counters()
    grpc_port, http_port = free_port(), free_port()
    protocols = {
        "grpc": {"endpoint": f"127.0.0.1:{grpc_port}", **(grpc_settings or {})},
        "http": {"endpoint": f"127.0.0.1:{http_port}", **(http_settings or {})},
    }
    outputs = Outputs(**dict.fromkeys(signals, taking))  # type: ignore[arg-type]  # a receiver of OTLP hands on no columns
    context = Context("under test", counters, signals, extensions=extensions or {})
    receiver = FACTORY.create(FACTORY.config.model_validate({"protocols": protocols}), context, outputs)
    receiver.start()
    try:
        yield Receiving(receiver, taking, counters, grpc_port, http_port)
    finally:
        receiver.shutdown(time.monotonic() + 5)
