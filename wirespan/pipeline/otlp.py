"""SpanBatch → OTLP requests.

An ``ExportTraceServiceRequest`` is built from columns and encoded fragments, never from objects: :mod:`.otlp_columns`
describes a batch to the encoder in C (wirespan/native/otlp.c), which says how many spans the next request has room for
and how large it is, and writes it.
"""

from __future__ import annotations

from ctypes import byref, c_uint64
from functools import partial
from typing import NamedTuple

import numpy as np

from ..native.library import library, new_bytes
from .otlp_columns import EncodableSpans, Int64Array
from .spans import SpanBatch

#: gRPC servers refuse messages above 4 MiB by default. And what is smaller than a mebibyte comes from memory that was used
#: before (see wirespan/service/allocator.py), where a larger request is mapped, cleared page by page and given back each
#: time: requests of up to 4 MiB took the agent three times the time in the kernel.
DEFAULT_MAX_BYTES = 1024 * 1024 - 64 * 1024


class ExportRequest(NamedTuple):
    """An encoded ``ExportTraceServiceRequest`` and how many spans are in it."""

    payload: bytes
    spans: int


class ResourceRun(NamedTuple):
    """The spans ``first`` to ``last`` (exclusive), in the order of resources, are of this resource."""

    resource: int
    first: int
    last: int


def encode_requests(batch: SpanBatch, max_bytes: int = DEFAULT_MAX_BYTES) -> list[ExportRequest]:
    """The batch as requests of at most ``max_bytes`` bytes, spans grouped by resource and otherwise in order.

    What cannot be made smaller, a single span or a resource that alone exceeds ``max_bytes``, still becomes a
    request: the receiver's refusal then counts it. Raises ValueError for a batch that is not consistent: columns of
    different lengths, indices behind the end of their table.
    """
    if not len(batch):
        return []
    spans = EncodableSpans(batch, resource_order(batch))
    native = library()
    if not native.spans_measure(spans.pointer):
        raise ValueError("a span of this batch has an index behind the end of its table")
    requests: list[ExportRequest] = []
    size, first = c_uint64(), 0
    while first < len(batch):
        last = native.request_end(spans.pointer, first, max_bytes, byref(size))
        payload = new_bytes(size.value, partial(native.request_write, spans.pointer, first, last))
        requests.append(ExportRequest(payload, last - first))
        first = last
    return requests


def resource_order(batch: SpanBatch) -> Int64Array:
    """The rows of a batch in the order of their resources."""
    resources = batch.resource
    if len(batch.resources) <= np.iinfo(np.uint16).max:  # integers of 16 bits are sorted in linear time
        resources = resources.astype(np.uint16)
    return np.argsort(resources, kind="stable")


def resource_runs(batch: SpanBatch) -> tuple[Int64Array, list[ResourceRun]]:
    """The rows of a batch (not empty) in the order of their resources, and where each resource's are in it."""
    order = resource_order(batch)
    resources = batch.resource[order]
    starts = np.concatenate(([0], np.flatnonzero(np.diff(resources)) + 1))
    runs = zip(resources[starts].tolist(), starts.tolist(), [*starts[1:].tolist(), len(order)], strict=True)
    return order, [ResourceRun(*run) for run in runs]
