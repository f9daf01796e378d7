"""What comes out behind a processor, and what is in it, for comparing the two forms that spans have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from support.foreign_batches import Request, encoded
from support.otlp_batches import spans_of
from wirespan.pipeline.component import Outcome
from wirespan.pipeline.encoded import EncodedBatch
from wirespan.pipeline.spans import SpanBatch
from wirespan.processors.values import value_of


class Behind:
    """The next consumer; it takes all."""

    def __init__(self) -> None:
        self.batches: list[EncodedBatch] = []
        self.columns: list[SpanBatch] = []

    def consume(self, batch: SpanBatch) -> None:
        self.columns.append(batch)

    def consume_encoded(self, batch: EncodedBatch) -> Outcome:
        self.batches.append(batch)
        return Outcome.TAKEN


def changed_request(make: Callable[[Behind], Any], request: Request) -> Any:
    """The request behind the processor."""
    behind = Behind()
    before = encoded(request)
    assert make(behind).consume_encoded(before) is Outcome.TAKEN
    (batch,) = behind.batches
    assert (batch.signal, batch.items) == (before.signal, before.items)
    return type(request).FromString(batch.data)


def request_of(batch: SpanBatch) -> ExportTraceServiceRequest:
    """The same spans as a request, each with a resource of its own."""
    request = ExportTraceServiceRequest()
    for resource, span in spans_of(batch):
        group = request.resource_spans.add(resource=resource)
        group.scope_spans.add().spans.append(span)
    return request


def attributes_of(message: Any) -> Mapping[str, Any]:
    """Of a resource, a span, …: with the types of values, as 1 and True are not the same here."""
    return {item.key: _typed(value_of(item.value)) for item in message.attributes}


def _typed(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_typed, value))
    return value if isinstance(value, str) else (type(value).__name__, repr(value))
