"""``memory_limiter``: refuses what comes while the process takes too much memory, instead of being killed for it.

Every ``check_interval`` the resident memory is looked at. Above the soft limit, ``limit_mib`` less ``spike_limit_mib``, what
comes by OTLP is refused, so that its sender comes again; spans of exchanges, which nobody sends again, are dropped and counted.
Above the hard limit garbage is collected, too. It is to be the first processor of a pipeline.
"""

from __future__ import annotations

import gc
import logging
import time
from pathlib import Path
from threading import Event, Thread
from typing import Annotated, Final, Self

from pydantic import Field, model_validator

from ..pipeline.component import ALL_SIGNALS, ComponentConfig, Context, Factory, Outcome, SpanConsumer
from ..pipeline.duration import Duration, within
from ..pipeline.encoded import EncodedBatch
from ..pipeline.memory import available_bytes, resident_bytes
from ..pipeline.spans import SpanBatch
from .items import REFUSED

logger = logging.getLogger(__name__)

_MIB: Final = 1024 * 1024
_DEFAULT_SPIKE: Final = 0.2
#: collecting garbage holds up everything else
_COLLECT_SECONDS: Final = 10.0


class MemoryLimiterSettings(ComponentConfig):
    """limit_percentage, spike_limit_percentage: of the memory of the control group, else of the machine; limit_mib wins."""

    check_interval: Annotated[Duration, within("10ms", "1h")] = 1.0
    limit_mib: int = Field(default=0, ge=0)
    spike_limit_mib: int = Field(default=0, ge=0)
    limit_percentage: int = Field(default=0, ge=0, le=100)
    spike_limit_percentage: int = Field(default=0, ge=0, le=100)

    @model_validator(mode="after")
    def _has_limits_that_make_sense(self) -> Self:
        if not self.limit_mib and not self.limit_percentage:
            raise ValueError("needs limit_mib or limit_percentage")
        if self.limit_mib and self.spike_limit_mib >= self.limit_mib:
            raise ValueError(f"spike_limit_mib {self.spike_limit_mib} is not less than limit_mib {self.limit_mib}")
        if not self.limit_mib and self.spike_limit_percentage >= self.limit_percentage:
            raise ValueError(
                f"spike_limit_percentage {self.spike_limit_percentage} is not less than "
                f"limit_percentage {self.limit_percentage}"
            )
        return self

    def limits(self, available: int) -> tuple[int, int]:
        """The soft and the hard one, in bytes."""
        if self.limit_mib:
            hard, spike = self.limit_mib * _MIB, self.spike_limit_mib * _MIB
        else:
            hard, spike = available * self.limit_percentage // 100, available * self.spike_limit_percentage // 100
        return hard - (spike or int(hard * _DEFAULT_SPIKE)), hard


class MemoryLimiter:
    def __init__(self, settings: MemoryLimiterSettings, context: Context, consumer: SpanConsumer) -> None:
        self._interval = settings.check_interval
        self._soft, self._hard = settings.limits(available_bytes(Path("/")))
        self._context, self._consumer = context, consumer
        self._refuses = False
        self._collected = -_COLLECT_SECONDS
        self._stopping = Event()
        self._thread = Thread(target=self._run, name=context.id, daemon=True)

    def start(self) -> None:
        logger.info(
            "Memory limit", extra={**self._fields(), "soft_mib": self._soft // _MIB, "hard_mib": self._hard // _MIB}
        )
        self._look()
        self._thread.start()

    def consume(self, batch: SpanBatch) -> None:
        if self._refuses:
            self._context.counters.add("wirespan.exchanges.dropped", len(batch), reason="memory_limit")
        else:
            self._consumer.consume(batch)

    def consume_encoded(self, batch: EncodedBatch) -> Outcome:
        if not self._refuses:
            return self._consumer.consume_encoded(batch)
        name, context = REFUSED[batch.signal], self._context
        context.counters.add(name, len(batch), processor=context.id, pipeline=context.pipeline)
        return Outcome.BUSY

    def shutdown(self, deadline: float) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self) -> None:
        while not self._stopping.wait(self._interval):
            self._look()

    def _look(self) -> None:
        memory = resident_bytes()
        if memory > self._hard and time.monotonic() - self._collected >= _COLLECT_SECONDS:
            gc.collect()
            self._collected = time.monotonic()
            memory = resident_bytes()
        refuses = memory > self._soft
        if refuses and not self._refuses:
            logger.warning("Memory is above the soft limit. Refusing data.", extra=self._fields(memory))
        elif self._refuses and not refuses:
            logger.info("Memory is below the soft limit. Taking data again.", extra=self._fields(memory))
        self._refuses = refuses

    def _fields(self, memory: int | None = None) -> dict[str, object]:
        fields: dict[str, object] = {"processor": self._context.id, "pipeline": self._context.pipeline}
        return fields if memory is None else fields | {"memory_mib": memory // _MIB}


FACTORY = Factory(
    "processor", "memory_limiter", MemoryLimiterSettings, MemoryLimiter, signals=ALL_SIGNALS, encoded_spans=True
)
