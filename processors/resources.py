"""Changes of resources, each made once a distinct resource: of spans in columns, and of requests without decoding the rest.

A resource of columns is an index into a table, so the changed ones are a table beside it, and no span is looked at. In a
request a resource is a field of its own before the many items that it is for; its bytes are remembered with what they become.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from threading import Lock
from typing import Final, cast
from weakref import WeakKeyDictionary

from ..pipeline.encoded import EncodedBatch
from ..pipeline.otlp_fields import ResourceSpansField
from ..pipeline.protobuf import bytes_field, read_fields, string_field
from ..pipeline.spans import AttributeValue, ResourceTable, SpanBatch
from .values import Attributes, MessageAttributes, readable

#: resources of requests that are remembered; then all are forgotten
RESOURCES_KEPT: Final = 4_096
#: bytes of one that is remembered
_LONGEST: Final = 4_096


class ResourceChanges:
    """change: of the attributes of a resource, in place. schema_url: of resources that have none. Safe from any thread."""

    def __init__(self, change: Callable[[Attributes], None], schema_url: str = "") -> None:
        self._change = change
        self._schema_url = schema_url
        self._lock = Lock()  # guards what follows
        self._tables: WeakKeyDictionary[ResourceTable, ResourceTable] = WeakKeyDictionary()
        self._encoded: dict[bytes, bytes] = {}

    def of_columns(self, batch: SpanBatch) -> SpanBatch:
        source = batch.resources
        with self._lock:
            changed = self._tables.get(source)
            if changed is None:
                changed = self._tables[source] = ResourceTable(source.limit)
            for resource in source.resources[len(changed) :]:
                attributes = readable(resource.items())
                self._change(attributes)
                changed.resources.append(cast(dict[str, AttributeValue], attributes))
        return replace(batch, resources=changed)

    def of_request(self, batch: EncodedBatch) -> EncodedBatch:
        data = b"".join(self._groups(batch.data))
        return replace(batch, data=data)

    def _groups(self, request: bytes) -> Iterator[bytes]:
        """The fields of a request; those of each signal, and of what is in them, have the same numbers."""
        for number, value, encoded in read_fields(request):
            yield bytes_field(number, self._group(value)) if isinstance(value, bytes) and number == 1 else encoded

    def _group(self, group: bytes) -> bytes:
        resource: bytes | None = None
        others: list[bytes] = []
        has_schema = False
        for number, value, encoded in read_fields(group):
            if number == ResourceSpansField.RESOURCE and isinstance(value, bytes):
                resource = (resource or b"") + value  # if there are several, they are parts of one
                continue
            has_schema = has_schema or (number == ResourceSpansField.SCHEMA_URL and bool(value))
            others.append(encoded)
        if self._schema_url and not has_schema:
            others.append(string_field(ResourceSpansField.SCHEMA_URL, self._schema_url))
        changed = self._resource(resource or b"")
        if changed or resource is not None:
            others.insert(0, bytes_field(ResourceSpansField.RESOURCE, changed))
        return b"".join(others)

    def _resource(self, resource: bytes) -> bytes:
        with self._lock:
            changed = self._encoded.get(resource)
            if changed is None:
                changed = self._changed(resource)
                if len(self._encoded) >= RESOURCES_KEPT:
                    self._encoded.clear()
                if len(resource) <= _LONGEST:
                    self._encoded[resource] = changed
            return changed

    def _changed(self, resource: bytes) -> bytes:
        from opentelemetry.proto.resource.v1.resource_pb2 import Resource

        message = Resource.FromString(resource)
        self._change(MessageAttributes(message.attributes))
        return message.SerializeToString()
