"""The contract between components and the service: what a receiver, processor, exporter or extension is.

A component kind is a :class:`Factory`: its type name in YAML, its configuration model (pydantic, extra
keys forbidden) and a function that creates an instance. The service validates, creates, starts extensions and
exporters first and receivers last, and stops in reverse. ``start`` may fail with :class:`StartError`; after it, bad
input must not raise out of a component. ``shutdown`` is idempotent, flushes, and returns by its deadline.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypeVar, runtime_checkable

from pydantic import BaseModel, ConfigDict

from .counters import Counters

if TYPE_CHECKING:  # a run that only reads a configuration loads no numpy
    from .encoded import EncodedBatch
    from .spans import SpanBatch

Kind: TypeAlias = Literal["receiver", "processor", "exporter", "extension"]
Signal: TypeAlias = Literal["traces", "metrics", "logs"]
#: The Collector's levels (docs/component-stability.md there), of those that occur here.
Stability: TypeAlias = Literal["Development", "Alpha", "Beta", "Stable"]

TRACES_ONLY: frozenset[Signal] = frozenset({"traces"})
ALL_SIGNALS: frozenset[Signal] = frozenset({"traces", "metrics", "logs"})


Offer = TypeVar("Offer")


class StartError(Exception):
    """A component cannot start. The message says what happened, where, and what to do; no traceback is shown."""


class ComponentConfig(BaseModel):
    """Base of every component's configuration: unknown keys are errors, instances are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Outcome(IntEnum):
    """What became of an encoded batch, for a receiver that answers its sender. Whoever does not take a batch counts it; of
    several consumers the worst counts.

    BUSY: not taken, but the same may be later. FAILED: lost by a defect, which the same batch would meet again.
    """

    TAKEN = 0
    BUSY = 1
    FAILED = 2


class Consumer(Protocol):
    """Something that takes spans in columns: the next processor, an exporter, or the fan-out to several."""

    def consume(self, batch: SpanBatch) -> None: ...


class EncodedConsumer(Protocol):
    """Likewise of requests of OTLP, of any signal."""

    def consume_encoded(self, batch: EncodedBatch) -> Outcome: ...


class SpanConsumer(Consumer, EncodedConsumer, Protocol):
    """Takes spans in either form."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where a receiver hands on what it receives; None for a signal that it is in no pipeline of."""

    traces: SpanConsumer | None = None
    metrics: EncodedConsumer | None = None
    logs: EncodedConsumer | None = None


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


@runtime_checkable
class Settling(Protocol):
    """A component that may have to leave a batch with a consumer that waits for room. That ends when the exporters have shut
    down, and then there is a moment to count what became of it."""

    def settle(self, seconds: float) -> None: ...


@runtime_checkable
class Preparing(Protocol):
    """A component that can do what takes long of its start while another one, whose place it takes, still runs.

    ``prepare`` disturbs nobody, and raises StartError. ``shutdown`` undoes it, also without a ``start``.
    """

    def prepare(self) -> None: ...


@runtime_checkable
class PipelineWatcher(Protocol):
    """An extension that is told when everything has started, and when it begins to stop."""

    def ready(self) -> None: ...

    def not_ready(self) -> None: ...


class Exporter(Component, SpanConsumer, Protocol): ...


@dataclass(frozen=True, slots=True)
class ExtensionOf:
    """Marks a field of a configuration as the id of an extension: ``Annotated[str, ExtensionOf(Storage)] | None``.

    offer: what the component wants of it. That there is such an extension is checked with the configuration, and
    ``Context.extension`` hands it over.
    """

    offer: type


@dataclass(frozen=True, slots=True)
class Context:
    """What the service hands to a component.

    id: its id in the configuration, ``type`` or ``type/name``.
    counters: where it counts; see :mod:`wirespan.pipeline.counters`.
    signals: those of the pipelines that it is in.
    pipeline: of a processor the id of its pipeline.
    extensions: those that run, by id.
    """

    id: str
    counters: Counters
    signals: frozenset[Signal] = TRACES_ONLY
    pipeline: str = ""
    extensions: Mapping[str, Any] = field(default_factory=dict)

    def extension(self, id_: str, offer: type[Offer]) -> Offer:
        """The extension of that id, as what it is wanted for. It has started when the component starts. Raises StartError if
        there is none, or if it is none of these."""
        found = self.extensions.get(id_)
        if found is None:
            raise StartError(f'no extension "{id_}" runs; add it to extensions and to service.extensions')
        if not isinstance(found, offer):
            raise StartError(f'the extension "{id_}" offers no {offer.__name__}')
        return found


@dataclass(frozen=True, slots=True)
class Factory:
    """A kind of component, known in YAML by ``name``. ``create(config, context)`` for exporters and extensions; processors
    also get the consumer behind them: ``create(config, context, consumer)``, receivers their :class:`Outputs`:
    ``create(config, context, outputs)``. ``conflict(one, other)``: why two configurations cannot run side by side, and what
    to do; None if they can. ``misfit(config, signal)``: why a configuration cannot be in a pipeline of that signal; None if it
    can. signals: of pipelines that it can be in: it has ``consume`` for traces, ``consume_encoded`` for
    the others. encoded_spans: of a receiver that it hands on spans as requests, of the others that they take them so as
    well. holds: of a processor that it takes requests before those behind it have. offers: of an extension what others can want of it, see :class:`ExtensionOf`."""

    kind: Kind
    name: str
    config: type[ComponentConfig]
    create: Callable[..., Any]
    deprecated_names: tuple[str, ...] = ()
    conflict: Callable[[Any, Any], str | None] | None = None
    misfit: Callable[[Any, Signal], str | None] | None = None
    signals: frozenset[Signal] = TRACES_ONLY
    stability: Stability = "Alpha"
    encoded_spans: bool = False
    offers: tuple[type, ...] = ()
    holds: bool = False


def third_party_factories() -> list[Factory]:
    """Factories that installed packages offer under the entry point group ``wirespan.components``."""
    return [entry.load() for entry in entry_points(group="wirespan.components")]
