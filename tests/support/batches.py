"""Hand-made spans with everything that OTLP spans of ours can have."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from wirespan.pipeline.spans import (
    Fragment,
    FragmentColumn,
    FragmentTable,
    ResourceTable,
    SpanBatch,
    SpanKind,
    StatusCode,
)

SERVICES = ("shop", "täglich", "日本")
FRAGMENTS = (
    Fragment("GET", (("db.system.name", "redis"), ("network.protocol.name", "redis"))),
    Fragment("POST", (("http.response.status_code", 503), ("error.type", "503")), StatusCode.ERROR),
    Fragment("TCP 7000", (("sampled", False), ("quota", 0.25), ("tags", ("a", "ü")))),
)


def make_batch(count: int, seed: int) -> SpanBatch:
    """``count`` spans of a few services that began just now; every second one has a parent, every third no queue."""
    random = np.random.default_rng(seed)
    rows = np.arange(count)
    resources, fragments = ResourceTable(), FragmentTable()
    for pid, service in enumerate(SERVICES, 100):
        resources.intern({"service.name": service, "process.pid": pid})
    for fragment in FRAGMENTS:
        fragments.intern(fragment)

    def ids(*shape: int) -> Any:
        return random.integers(1, 2**64 - 1, shape, dtype=np.uint64, endpoint=True)

    start = np.uint64(time.time_ns()) + rows.astype(np.uint64)
    return SpanBatch(
        trace_id=ids(count, 2),
        span_id=ids(count),
        parent_span_id=np.where(rows % 2, ids(count), np.uint64(0)),
        start=start,
        end=start + random.integers(1, 10**10, count, dtype=np.uint64),
        kind=np.where(rows % 2, SpanKind.CLIENT, SpanKind.SERVER).astype(np.uint8),
        resource=rows % len(SERVICES),
        resources=resources,
        fragments=(FragmentColumn(fragments, random.integers(0, len(FRAGMENTS), count)),),
        numbers={
            "wirespan.request.size": random.integers(0, 2**42, count),
            "wirespan.queue.duration": np.where(rows % 3, random.random(count), np.nan),
        },
    )
