"""The components of all pipelines, connected, started and stopped.

A receiver or exporter that several pipelines name is one instance, also if they are of different signals; a receiver then
feeds all of them. Processors belong to one pipeline each. Data flows receiver → processors → exporters, so exporters start first and receivers
last, and the way back is the reverse: when an exporter is told to flush, nothing can reach it any more. Extensions, which others
use, start before all and stop after all.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..pipeline.component import (
    Component,
    Context,
    Factual,
    Kind,
    Outcome,
    Outputs,
    PipelineWatcher,
    Settling,
    Signal,
    SpanConsumer,
    StartError,
)
from ..pipeline.counters import Counters
from ..pipeline.defects import Boundary, exporter_boundary, processor_boundary
from ..pipeline.encoded import EncodedBatch
from ..pipeline.spans import SpanBatch
from .config import ComponentSettings, Configuration, Pipeline

logger = logging.getLogger(__name__)

#: after the exporters have let go of what waited for them
_SETTLE_SECONDS = 0.3


class FanOut:
    """Gives each batch to several consumers, which share and so must not change it."""

    def __init__(self, consumers: Sequence[Any]) -> None:
        self._consumers = tuple(consumers)

    def consume(self, batch: SpanBatch) -> None:
        for consumer in self._consumers:
            consumer.consume(batch)

    def consume_encoded(self, batch: EncodedBatch) -> Outcome:
        """What one does not take, its sender will send again to all: the others get it twice, as with a Collector."""
        outcomes: list[Outcome] = [consumer.consume_encoded(batch) for consumer in self._consumers]
        return max(outcomes)


class Counted:
    """A consumer whose items are counted, for the processor before or behind it."""

    def __init__(self, consumer: Any, counters: Counters, name: str, processor: str) -> None:
        self._consumer = consumer
        self._add = partial(counters.add, name, processor=processor)

    def consume(self, batch: SpanBatch) -> None:
        self._add(len(batch), **{"otel.signal": "traces"})
        self._consumer.consume(batch)

    def consume_encoded(self, batch: EncodedBatch) -> Outcome:
        self._add(len(batch), **{"otel.signal": batch.signal})
        outcome: Outcome = self._consumer.consume_encoded(batch)
        return outcome


@dataclass(frozen=True, slots=True)
class _Node:
    kind: Kind
    id: str
    component: Component


class Graph:
    """What a configuration describes, running. Raises StartError if a component refuses to be made.

    tally: gets the spans that every receiver hands on, before pipelines do. received: whether any receiver was started.
    """

    def __init__(self, configuration: Configuration, counters: Counters, tally: SpanConsumer | None = None) -> None:
        self._components = configuration.components
        self._pipelines = configuration.pipelines
        self._extensions: dict[str, Any] = {}
        self._counters = counters
        self._tally = tally
        self._nodes: list[_Node] = []
        self._started: list[_Node] = []
        self.received = False
        self._create_extensions(configuration.extensions)
        exporters = self._create_exporters()
        heads = {p.id: self._create_processors(p, exporters) for p in configuration.pipelines}
        self._create_receivers(heads)

    def start(self) -> None:
        """Start all, exporters first. Raises StartError; what was started until then is left to ``shutdown``."""
        for node in self._nodes:
            try:
                node.component.start()
            except StartError as error:
                raise StartError(f"the {node.kind} {node.id} cannot start: {error}") from error
            self._started.append(node)
            self.received |= node.kind == "receiver"
            logger.debug("Started", extra={"kind": node.kind, "component": node.id})
        for extension in self._extensions.values():
            if isinstance(extension, PipelineWatcher):
                extension.ready()

    def facts(self) -> dict[str, object]:
        """What the components say that they work on, receivers first; a list where several say different things."""
        said: dict[str, list[int | str]] = {}
        for node in reversed(self._nodes):
            facts: Mapping[str, int | str] = node.component.facts() if isinstance(node.component, Factual) else {}
            for name, value in facts.items():
                if value not in said.setdefault(name, []):
                    said[name].append(value)
        return {name: values if len(values) > 1 else values[0] for name, values in said.items()}

    def shutdown(self, deadline: float) -> bool:
        """Stop what was started, receivers first, by ``deadline`` (``time.monotonic``). Whether all stopped well.

        A component that fails to stop does not keep the others from flushing.
        """
        clean, stopped = True, list(self._started)
        for node in stopped:
            if node.kind == "extension" and isinstance(node.component, PipelineWatcher):
                node.component.not_ready()
        while self._started:
            node = self._started.pop()
            try:
                node.component.shutdown(deadline)
            except Exception:
                logger.exception("A component failed to stop", extra={"kind": node.kind, "component": node.id})
                clean = False
        for node in stopped:
            if isinstance(node.component, Settling):
                node.component.settle(_SETTLE_SECONDS)
        return clean

    def _create_extensions(self, ids: Sequence[str]) -> None:
        """Each sees those before it."""
        for id_ in ids:
            settings = self._components["extension"][id_]
            extension = settings.factory.create(settings.config, self._context(settings, frozenset()))
            self._extensions[id_] = extension
            self._nodes.append(_Node("extension", id_, extension))

    def _create_exporters(self) -> dict[str, Any]:
        ids = dict.fromkeys(exporter for pipeline in self._pipelines for exporter in pipeline.exporters)
        exporters: dict[str, Any] = {}
        for exporter_id in ids:
            settings = self._components["exporter"][exporter_id]
            signals = frozenset(p.signal for p in self._pipelines if exporter_id in p.exporters)
            exporters[exporter_id] = exporter = settings.factory.create(
                settings.config, self._context(settings, signals)
            )
            self._nodes.append(_Node("exporter", exporter_id, exporter))
        return exporters

    def _create_processors(self, pipeline: Pipeline, exporters: Mapping[str, Any]) -> Any:
        """The first consumer of a pipeline: its first processor, or the way to its exporters."""
        head = _joined([exporter_boundary(exporters[id_], id_, self._counters) for id_ in pipeline.exporters])
        for processor_id in reversed(pipeline.processors):
            settings = self._components["processor"][processor_id]
            context = self._context(settings, frozenset({pipeline.signal}), pipeline.id)
            outgoing = Counted(head, self._counters, "otelcol_processor_outgoing_items", processor_id)
            processor = settings.factory.create(settings.config, context, outgoing)
            self._nodes.append(_Node("processor", processor_id, processor))
            guarded = processor_boundary(processor, processor_id, self._counters)
            head = Counted(guarded, self._counters, "otelcol_processor_incoming_items", processor_id)
        return head

    def _create_receivers(self, heads: Mapping[str, Any]) -> None:
        ids = dict.fromkeys(receiver for pipeline in self._pipelines for receiver in pipeline.receivers)
        for receiver_id in ids:
            settings = self._components["receiver"][receiver_id]
            fed = [pipeline for pipeline in self._pipelines if receiver_id in pipeline.receivers]
            outputs = Outputs(**{signal: self._output(signal, fed, heads) for signal in {p.signal for p in fed}})
            context = self._context(settings, frozenset(pipeline.signal for pipeline in fed))
            receiver = settings.factory.create(settings.config, context, outputs)
            self._nodes.append(_Node("receiver", receiver_id, receiver))

    def _output(self, signal: Signal, fed: Sequence[Pipeline], heads: Mapping[str, Any]) -> Any:
        """What takes a receiver's data of a signal, for those of the pipelines that are of it."""
        consumers = [heads[pipeline.id] for pipeline in fed if pipeline.signal == signal]
        if self._tally is not None and signal == "traces":
            # It passes nothing on, so what it fails at is no loss.
            consumers.insert(0, Boundary(self._tally, lambda signal, items: None, "tally"))
        return _joined(consumers)

    def _context(self, settings: ComponentSettings, signals: frozenset[Signal], pipeline: str = "") -> Context:
        return Context(settings.id, self._counters, signals, pipeline, dict(self._extensions))


def _joined(consumers: Sequence[Any]) -> Any:
    """The only consumer, or all of them. Each is of a type that takes what comes, as configurations are checked for."""
    return consumers[0] if len(consumers) == 1 else FanOut(consumers)
