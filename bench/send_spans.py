"""An OTLP client over gRPC that sends 10,000 spans a second: ``python bench/send_spans.py PORT SECONDS``.

Requests of 100 spans with gzip, as an SDK sends them that compresses, each a different one of a few that were made before. Prints
how many spans were acknowledged; fails if one was not, or if it could not keep the rate.
"""

from __future__ import annotations

import random
import sys
import time
from collections import deque

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

RATE, REQUEST = 10_000, 100
_METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
_DIFFERENT = 50
_LATE = 1.05


def request(source: random.Random) -> bytes:
    """Of an HTTP server, every span of another trace."""
    resource = Resource(attributes=[_text("service.name", "shop"), _text("host.name", f"{source.randbytes(8).hex()}")])
    scope = InstrumentationScope(name="opentelemetry.instrumentation.wsgi", version="0.60")
    spans = [_span(source) for _ in range(REQUEST)]
    groups = [ResourceSpans(resource=resource, scope_spans=[ScopeSpans(scope=scope, spans=spans)])]
    return ExportTraceServiceRequest(resource_spans=groups).SerializeToString()


def _span(source: random.Random) -> Span:
    path, start = f"/items/{source.randrange(100_000)}", 1_790_000_000 * 10**9 + source.randrange(10**12)
    client = f"10.{source.randrange(256)}.{source.randrange(256)}.{source.randrange(256)}"
    attributes = {
        "http.request.method": "GET",
        "http.route": "/items/{id}",
        "url.path": path,
        "url.query": f"q={source.randbytes(12).hex()}",
        "url.scheme": "https",
        "server.address": "shop.example.com",
        "client.address": client,
        "network.peer.address": client,
        "network.protocol.version": "1.1",
        "user_agent.original": f"Mozilla/5.0 (X11; Linux x86_64; rv:{source.randrange(100, 150)}.0) Gecko/20100101",
    }
    numbers = {"http.response.status_code": 200, "server.port": 443, "network.peer.port": source.randrange(2**16)}
    return Span(
        trace_id=source.randbytes(16),
        span_id=source.randbytes(8),
        parent_span_id=source.randbytes(8),
        flags=0x101,
        name="GET /items/{id}",
        kind=Span.SPAN_KIND_SERVER,
        start_time_unix_nano=start,
        end_time_unix_nano=start + source.randrange(10**8),
        attributes=[
            *(_text(key, value) for key, value in attributes.items()),
            *(KeyValue(key=key, value=AnyValue(int_value=value)) for key, value in numbers.items()),
        ],
    )


def _text(key: str, value: str) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(string_value=value))


def main(port: int, seconds: float) -> None:
    source = random.Random(1)
    requests = [request(source) for _ in range(_DIFFERENT)]
    count = int(seconds * RATE / REQUEST)
    under_way: deque[grpc.Future] = deque()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        export = channel.unary_unary(_METHOD)
        grpc.channel_ready_future(channel).result(10)
        began = time.monotonic()
        for number in range(count):
            time.sleep(max(0.0, began + number * REQUEST / RATE - time.monotonic()))
            payload = requests[number % _DIFFERENT]
            under_way.append(export.future(payload, timeout=20, compression=grpc.Compression.Gzip))
            while under_way and under_way[0].done():
                under_way.popleft().result()
        for call in under_way:
            call.result()
        took = time.monotonic() - began
    if took > _LATE * seconds:
        sys.exit(f"{count * REQUEST} spans took {took:.1f} s")
    print(count * REQUEST)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
