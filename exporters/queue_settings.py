"""``sending_queue``, with the Collector's keys, defaults and rules
(https://github.com/open-telemetry/opentelemetry-collector/blob/main/exporter/exporterhelper/README.md)."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from ..pipeline.component import ComponentConfig, ExtensionOf
from ..pipeline.duration import Duration, within
from ..pipeline.otlp import DEFAULT_MAX_BYTES
from ..pipeline.storage import Storage
from .items import Encoded


class BatchSettings(ComponentConfig):
    """``batch``: requests that wait are joined until they have min_size, or the first has waited for flush_timeout. Sizes are
    in items, or in bytes as ``sizer`` says; max_size 0: as large as a request can be."""

    enabled: bool = True
    flush_timeout: Annotated[Duration, within("1ms", "1h")] = 0.2
    min_size: int = Field(default=8192, ge=0)
    max_size: int = Field(default=0, ge=0)
    sizer: Literal["items", "bytes"] = "items"

    @model_validator(mode="after")
    def _the_largest_is_not_smaller(self) -> Self:
        if 0 < self.max_size < self.min_size:
            raise ValueError(f"max_size {self.max_size} is less than min_size {self.min_size}")
        return self

    def size_of(self, items: int, payload: int) -> int:
        """Of a request with so many items and bytes."""
        return items if self.sizer == "items" else payload

    @property
    def max_items(self) -> int:
        """Of a request; 0: any number."""
        return self.max_size if self.sizer == "items" else 0

    @property
    def max_bytes(self) -> int:
        """Of a request."""
        return (
            min(self.max_size or DEFAULT_MAX_BYTES, DEFAULT_MAX_BYTES) if self.sizer == "bytes" else DEFAULT_MAX_BYTES
        )


class QueueSettings(ComponentConfig):
    """``sending_queue``. queue_size is in requests, items (spans, data points, log records) or bytes before compression, as
    ``sizer`` says, and holds what is being sent too. The requests of all signals share it."""

    enabled: bool = True
    num_consumers: int = Field(default=10, ge=1, le=256)
    wait_for_result: bool = False
    queue_size: int = Field(default=1000, ge=1)
    sizer: Literal["requests", "items", "bytes"] = "requests"
    block_on_overflow: bool = False
    storage: Annotated[str, ExtensionOf(Storage)] | None = None
    batch: BatchSettings | None = None

    @model_validator(mode="before")
    @classmethod
    def _a_batch_is_measured_as_the_queue(cls, data: Any) -> Any:
        """If it has no sizer of its own, and the queue has one."""
        if isinstance(data, dict) and "sizer" in data:
            batch = data.get("batch")
            if isinstance(batch, dict) and "sizer" not in batch:
                return {**data, "batch": {**batch, "sizer": data["sizer"]}}
        return data

    @model_validator(mode="after")
    def _size_has_a_unit(self) -> Self:
        if self.sizer != "requests" and "queue_size" not in self.model_fields_set:
            raise ValueError(f"queue_size is needed with sizer: {self.sizer}; the default, 1000, is in requests")
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.storage is not None and self.wait_for_result:
            raise ValueError("wait_for_result is not possible with storage: what is stored is answered for at once")
        batch = self.joined
        if batch is not None and batch.sizer == self.sizer and batch.min_size > self.queue_size:
            raise ValueError(
                f"batch.min_size {batch.min_size} is more than queue_size {self.queue_size}: no batch fits"
            )
        return self

    @property
    def joined(self) -> BatchSettings | None:
        """How requests are joined; None if they are not."""
        return self.batch if self.batch is not None and self.batch.enabled else None

    def size_of(self, request: Encoded) -> int:
        """What a request takes of ``queue_size``."""
        return self.size(request.count, len(request.payload))

    def size(self, items: int, payload: int) -> int:
        """Likewise of one with so many items and bytes."""
        match self.sizer:
            case "requests":
                return 1
            case "items":
                return items
            case "bytes":
                return payload
