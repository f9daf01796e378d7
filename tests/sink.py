"""An OTLP backend for tests and benchmarks: gRPC and HTTP servers that store requests, or only count their spans.

In a test: ``with Sink() as sink: …``, then ``sink.spans``, ``sink.metrics`` and ``sink.logs``. As a process of its own, where it does not take the
interpreter of what is measured::

    python tests/sink.py --grpc 4317 --http 4318 --count-only --out counts.json

which says ``ready`` when it listens and writes ``{"requests": …, "spans": …, "bytes": …}`` when it gets SIGTERM. With
``--keep FILE`` it writes down every request before it answers, so that it may be killed; :func:`kept` reads them.
Answers can be scripted: the next requests get what ``sink.answers`` holds.
"""

from __future__ import annotations

import gzip
import json
import signal
import ssl
import struct
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any, NamedTuple, Self

import click
import grpc
from backports import zstd
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

#: by gRPC's method, and by the end of a path
SIGNALS = {
    "/opentelemetry.proto.collector.trace.v1.TraceService/Export": "traces",
    "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export": "metrics",
    "/opentelemetry.proto.collector.logs.v1.LogsService/Export": "logs",
}
#: by Content-Encoding
DECOMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "identity": bytes,
    "gzip": gzip.decompress,
    "zstd": zstd.decompress,
    "zlib": zlib.decompress,
    "deflate": zlib.decompress,
}


_NAMES = tuple(SIGNALS.values())
#: before each request that is kept: of which signal, and how many bytes
_RECORD = struct.Struct("<BQ")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request gets instead of success.

    grpc_code, http_status: as the transport calls it; success if None. body: the response message, or of a failure
    the ``google.rpc.Status``. headers: of HTTP, or trailing metadata. delay: seconds before the answer.
    """

    grpc_code: grpc.StatusCode | None = None
    http_status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str | bytes], ...] = ()
    delay: float = 0.0

    @property
    def accepts(self) -> bool:
        return self.grpc_code is None and self.http_status < 300


class Certificate(NamedTuple):
    """What a server shows in TLS; files in PEM. client_ca: who signs the certificate that a client then needs."""

    key: Path
    certificate: Path
    client_ca: Path | None = None

    def context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.certificate, self.key)
        if self.client_ca is not None:
            context.load_verify_locations(self.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def credentials(self) -> grpc.ServerCredentials:
        pair = (self.key.read_bytes(), self.certificate.read_bytes())
        authorities = None if self.client_ca is None else self.client_ca.read_bytes()
        return grpc.ssl_server_credentials([pair], authorities, authorities is not None)


class Sink:
    """Listens while it is a context; port 0 is any free port, None is not to listen."""

    def __init__(
        self,
        grpc_port: int | None = 0,
        http_port: int | None = 0,
        count_only: bool = False,
        certificate: Certificate | None = None,
        keep: Path | None = None,
    ) -> None:
        self.answers: deque[Answer] = deque()
        self.payloads: list[bytes] = []
        self.headers: list[Mapping[str, str | bytes]] = []
        self.metrics_payloads: list[bytes] = []
        self.metrics_headers: list[Mapping[str, str | bytes]] = []
        self.logs_payloads: list[bytes] = []
        self.request_count = self.span_count = self.byte_count = 0
        self.grpc_port, self.http_port = grpc_port, http_port
        self._count_only = count_only
        self._certificate = certificate
        self._kept = None if keep is None else keep.open("ab", buffering=0)
        self._lock = Lock()
        self._stopping = Event()
        self._grpc: grpc.Server | None = None
        self._http: _HttpServer | None = None

    def __enter__(self) -> Self:
        if self.grpc_port is not None:
            self._grpc = grpc.server(ThreadPoolExecutor(max_workers=4), [_GrpcHandler(self)])
            self.grpc_port = self._add_grpc_port(self._grpc, f"127.0.0.1:{self.grpc_port}")
            self._grpc.start()
        if self.http_port is not None:
            self._http = _HttpServer(("127.0.0.1", self.http_port), self)
            self.http_port = self._http.server_port
            if self._certificate is not None:
                # The handshake is the request's thread's to do, not that of who accepts.
                self._http.socket = self._certificate.context().wrap_socket(
                    self._http.socket, server_side=True, do_handshake_on_connect=False
                )
            Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stopping.set()
        if self._grpc is not None:
            self._grpc.stop(grace=None).wait()
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()

    def _add_grpc_port(self, server: grpc.Server, address: str) -> int:
        if self._certificate is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, self._certificate.credentials())

    def receive(self, payload: bytes, headers: Mapping[str, str | bytes], signal: str) -> Answer:
        """Take a request in, if the next scripted answer is that it is taken."""
        with self._lock:
            answer = self.answers.popleft() if self.answers else Answer()
            if answer.accepts:
                self.request_count += 1
                self.span_count += count_spans(payload) if signal == "traces" else 0
                self.byte_count += len(payload)
                if self._kept is not None:
                    self._kept.write(_RECORD.pack(_NAMES.index(signal), len(payload)) + payload)
            if answer.accepts and signal == "logs":
                self.logs_payloads.append(payload)
            elif answer.accepts and signal == "metrics":
                self.metrics_payloads.append(payload)
                self.metrics_headers.append(headers)
            elif answer.accepts and not self._count_only:
                self.payloads.append(payload)
                self.headers.append(headers)
        self._stopping.wait(answer.delay)
        return answer

    @property
    def spans(self) -> list[tuple[Resource, Span]]:
        """All that were stored, each with its resource."""
        messages = [ExportTraceServiceRequest.FromString(payload) for payload in list(self.payloads)]
        return [
            (group.resource, span)
            for message in messages
            for group in message.resource_spans
            for scope in group.scope_spans
            for span in scope.spans
        ]

    @property
    def logs(self) -> list[ExportLogsServiceRequest]:
        """All requests of logs, in order."""
        return [ExportLogsServiceRequest.FromString(payload) for payload in list(self.logs_payloads)]

    @property
    def metrics(self) -> list[ExportMetricsServiceRequest]:
        """All requests of metrics that came in protobuf, in order."""
        return [
            ExportMetricsServiceRequest.FromString(payload) for payload in self._metrics_in("application/x-protobuf")
        ]

    @property
    def metrics_json(self) -> list[dict[str, Any]]:
        """Those that came in JSON."""
        return [json.loads(payload) for payload in self._metrics_in("application/json")]

    def _metrics_in(self, encoding: str) -> list[bytes]:
        """gRPC, which has no other, calls protobuf by a name of its own."""
        received = list(zip(self.metrics_headers, self.metrics_payloads, strict=False))
        return [
            payload
            for headers, payload in received
            if headers.get("content-type", "application/x-protobuf") == encoding
        ]

    def counts(self) -> dict[str, int]:
        return {"requests": self.request_count, "spans": self.span_count, "bytes": self.byte_count}


class _GrpcHandler(grpc.GenericRpcHandler):
    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        signal = SIGNALS.get(details.method)
        return None if signal is None else grpc.unary_unary_rpc_method_handler(partial(self._export, signal))

    def _export(self, signal: str, payload: bytes, context: grpc.ServicerContext) -> bytes:
        answer = self._sink.receive(payload, dict(context.invocation_metadata()), signal)
        if answer.grpc_code is not None:
            context.set_trailing_metadata(answer.headers)
            context.abort(answer.grpc_code, "scripted")
        return answer.body


class _HttpHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps connections alive
    server: _HttpServer

    def do_POST(self) -> None:
        payload = self.rfile.read(int(self.headers["Content-Length"]))
        payload = DECOMPRESS[self.headers.get("Content-Encoding", "identity")](payload)
        headers = {name.lower(): value for name, value in self.headers.items()} | {":path": self.path}
        named = self.path.rpartition("/")[2]
        answer = self.server.sink.receive(payload, headers, named if named in SIGNALS.values() else "traces")
        self.send_response(answer.http_status)
        for name, value in answer.headers:
            self.send_header(name, str(value))
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: tests look at the sink."""


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], sink: Sink) -> None:
        super().__init__(address, _HttpHandler)
        self.sink = sink


def kept(path: Path) -> Iterator[tuple[str, bytes]]:
    """The signal and the payload of each request in the file of ``--keep``, but for one that was being written at the end."""
    data, at = path.read_bytes() if path.exists() else b"", 0
    while at + _RECORD.size <= len(data):
        name, size = _RECORD.unpack_from(data, at)
        at += _RECORD.size + size
        if at <= len(data):
            yield _NAMES[name], data[at - size : at]


def count_spans(request: bytes) -> int:
    """Walks over the lengths only: ``resource_spans`` (field 1), in it ``scope_spans`` (2), in it ``spans`` (2)."""
    return sum(
        1
        for resource_spans in _messages(request, 0x0A, 0, len(request))
        for scope_spans in _messages(request, 0x12, *resource_spans)
        for _ in _messages(request, 0x12, *scope_spans)
    )


def _messages(data: bytes, wanted: int, at: int, end: int) -> Iterator[tuple[int, int]]:
    """Where the messages with this tag begin and end; all fields on the way have a length, none a long tag."""
    while at < end:
        tag, at = data[at], at + 1
        length = shift = 0
        while (byte := data[at]) >= 0x80:
            length |= (byte & 0x7F) << shift
            shift, at = shift + 7, at + 1
        length |= byte << shift
        at += 1
        if tag == wanted:
            yield at, at + length
        at += length


@click.command(help=__doc__)
@click.option("--grpc", "grpc_port", type=int)
@click.option("--http", "http_port", type=int)
@click.option("--count-only", is_flag=True, help="Keep no requests.")
@click.option("--keep", type=click.Path(path_type=Path), help="Where every request is written before it is answered.")
@click.option("--out", type=click.Path(path_type=Path), help="Where the counts are written at the end.")
def main(grpc_port: int | None, http_port: int | None, count_only: bool, keep: Path | None, out: Path | None) -> None:
    stop = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)  # before any thread starts, else one of them takes the signal
    with Sink(grpc_port, http_port, count_only, keep=keep) as sink:
        click.echo("ready")
        signal.sigwait(stop)
    if out is not None:
        out.write_text(json.dumps(sink.counts()))


if __name__ == "__main__":
    main()
