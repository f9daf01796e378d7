"""How long a span takes from columns to OTLP bytes and OTLP JSON: ``.venv/bin/python bench/encode.py``.

Batches as the receiver makes them: 16 attributes, half of them in three fragment columns, the other half numbers of
which some spans lack some. Batches have new ids and numbers each time, fragments recur. The median of several
batches is printed, in microseconds a span.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import click
import numpy as np

from wirespan.pipeline.otlp import encode_requests
from wirespan.pipeline.otlp_json import encode_json
from wirespan.pipeline.spans import Fragment, FragmentColumn, FragmentTable, ResourceTable, SpanBatch, StatusCode


class BatchSource:
    """Batches that share their tables, as one receiver's do."""

    def __init__(self, seed: int = 1) -> None:
        self._random = np.random.default_rng(seed)
        self._resources = ResourceTable()
        self._protocols, self._peers, self._transports = FragmentTable(), FragmentTable(), FragmentTable()
        for service in range(8):
            name = f"service-{service}"
            self._resources.intern({"service.name": name, "process.pid": 1000 + service, "host.name": "bench"})
        for status in (200, 201, 302, 404, 500):
            error = StatusCode.ERROR if status >= 500 else StatusCode.UNSET
            attributes = (("http.request.method", "GET"), ("http.response.status_code", status), ("url.path", "/"))
            self._protocols.intern(Fragment("GET", attributes, error))
        for host in range(64):
            address = f"10.0.0.{host}"
            peer = (("network.peer.address", address), ("client.address", address), ("server.address", "10.1.0.1"))
            self._peers.intern(Fragment(None, peer))
        self._transports.intern(Fragment(None, (("network.transport", "tcp"), ("network.type", "ipv4"))))

    def batch(self, spans: int) -> SpanBatch:
        def draw(limit: int) -> np.ndarray:
            return self._random.integers(0, limit, spans)

        def column(table: FragmentTable) -> FragmentColumn:
            return FragmentColumn(table, draw(len(table)))

        start = np.sort(draw(10**9)).astype(np.uint64) + np.uint64(1_790_000_000 * 10**9)
        server = draw(2).astype(bool)
        seconds = self._random.exponential(0.001, (4, spans))
        return SpanBatch(
            trace_id=self._random.integers(0, 2**63, (spans, 2), np.uint64),
            span_id=self._random.integers(1, 2**63, spans, np.uint64),
            parent_span_id=np.where(server, self._random.integers(1, 2**63, spans, np.uint64), np.uint64(0)),
            start=start,
            end=start + draw(10**8).astype(np.uint64),
            kind=np.where(server, 2, 3).astype(np.uint8),
            resource=draw(len(self._resources)),
            resources=self._resources,
            fragments=(column(self._protocols), column(self._peers), column(self._transports)),
            numbers={
                "server.port": np.full(spans, 8080),
                "client.port": draw(60_000),
                "network.peer.port": draw(60_000),
                "wirespan.request.size": draw(500),
                "wirespan.response.size": draw(20_000),
                "wirespan.queue.duration": np.where(server, seconds[0], np.nan),
                "wirespan.processing.duration": seconds[1],
                "wirespan.response.duration": seconds[2],
            },
        )


def microseconds(encode: Callable[[SpanBatch], object], source: BatchSource, spans: int, batches: int) -> float:
    """The median time of a span; the first batch fills the caches and is not measured."""
    times = []
    for _ in range(batches + 1):
        batch = source.batch(spans)
        begin = time.perf_counter()
        encode(batch)
        times.append((time.perf_counter() - begin) / spans * 1e6)
    return statistics.median(times[1:])


@click.command(help=__doc__)
@click.option("--spans", default=5_000, show_default=True, help="Spans a batch.")
@click.option("--batches", default=40, show_default=True)
def main(spans: int, batches: int) -> None:
    source = BatchSource()
    size = sum(len(request.payload) for request in encode_requests(source.batch(spans))) / spans
    click.echo(f"protobuf  {microseconds(encode_requests, source, spans, batches):6.2f} us a span, {size:.0f} B")
    click.echo(f"JSON      {microseconds(encode_json, source, spans, batches):6.2f} us a span")


if __name__ == "__main__":
    main()
