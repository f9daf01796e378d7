"""The contract between components and the service: what a receiver, processor or exporter is.

A component kind is a :class:`Factory`: its type name in YAML, its configuration model (pydantic, extra
keys forbidden) and a function that creates an instance. The service validates, creates, starts exporters
first and receivers last, and stops in reverse. ``start`` may fail with :class:`StartError`; after it, bad
input must not raise out of a component. ``shutdown`` is idempotent, flushes, and returns by its deadline.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, runtime_checkable

from pydantic import BaseModel, ConfigDict

from .counters import Counters

if TYPE_CHECKING:  # a run that only reads a configuration loads no numpy
    from .metrics import MetricsBatch
    from .spans import SpanBatch

Kind: TypeAlias = Literal["receiver", "processor", "exporter"]
Signal: TypeAlias = Literal["traces", "metrics"]
#: The Collector's levels (docs/component-stability.md there), of those that occur here.
Stability: TypeAlias = Literal["Development", "Alpha", "Beta", "Stable"]

TRACES_ONLY: frozenset[Signal] = frozenset({"traces"})


class StartError(Exception):
    """A component cannot start. The message says what happened, where, and what to do; no traceback is shown."""


class ComponentConfig(BaseModel):
    """Base of every component's configuration: unknown keys are errors, instances are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Consumer(Protocol):
    """Something that takes spans: the next processor, an exporter, or the fan-out to several."""

    def consume(self, batch: SpanBatch) -> None: ...


class MetricsConsumer(Protocol):
    """Likewise of metrics."""

    def consume_metrics(self, batch: MetricsBatch) -> None: ...


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where a receiver hands on what it receives; None for a signal that it is in no pipeline of."""

    traces: Consumer | None = None
    metrics: MetricsConsumer | None = None


class Component(Protocol):
    def start(self) -> None:
        """Begin to work; raise StartError with a message for the user when that is impossible."""

    def shutdown(self, deadline: float) -> None:
        """Stop taking input, flush, free everything; done by ``deadline`` (``time.monotonic`` seconds)."""


@runtime_checkable
class Factual(Protocol):
    """A component that can say what it works on, in a few words or numbers. The service logs it once all have started.

    An exporter says under ``exports_to`` where its data goes, without what is secret.
    """

    def facts(self) -> Mapping[str, int | str]: ...


class Exporter(Component, Consumer, Protocol): ...


@dataclass(frozen=True, slots=True)
class Context:
    """What the service hands to a component.

    id: its id in the configuration, ``type`` or ``type/name``.
    counters: where it counts; see :mod:`wirespan.pipeline.counters`.
    signals: those of the pipelines that it is in.
    """

    id: str
    counters: Counters
    signals: frozenset[Signal] = TRACES_ONLY


@dataclass(frozen=True, slots=True)
class Factory:
    """A kind of component, known in YAML by ``name``. ``create(config, context)`` for exporters; processors also get the
    consumer behind them: ``create(config, context, consumer)``, receivers their :class:`Outputs`:
    ``create(config, context, outputs)``. ``conflict(one, other)``: why two configurations cannot run side by side, and what
    to do; None if they can. signals: of pipelines that it can be in: it has ``consume`` for traces, ``consume_metrics`` for
    metrics."""

    kind: Kind
    name: str
    config: type[ComponentConfig]
    create: Callable[..., Any]
    deprecated_names: tuple[str, ...] = ()
    conflict: Callable[[Any, Any], str | None] | None = None
    signals: frozenset[Signal] = TRACES_ONLY
    stability: Stability = "Alpha"


def third_party_factories() -> list[Factory]:
    """Factories that installed packages offer under the entry point group ``wirespan.components``."""
    return [entry.load() for entry in entry_points(group="wirespan.components")]
