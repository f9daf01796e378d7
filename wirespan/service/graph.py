"""The components of all pipelines, connected, started and stopped.

A receiver or exporter that several pipelines name is one instance, also if they are of different signals; a receiver then
feeds all of them. Processors belong to one pipeline each. Data flows receiver → processors → exporters, so exporters start first and receivers
last, and the way back is the reverse: when an exporter is told to flush, nothing can reach it any more. Extensions, which others
use, start before all and stop after all.

A graph that replaces another one takes over what is the same in both, as it runs: see :mod:`.service`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
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
    Preparing,
    Settling,
    Signal,
    SpanConsumer,
    StartError,
)
from ..pipeline.counters import Counters, PartOfCounters
from ..pipeline.defects import Boundary, exporter_boundary, processor_boundary
from ..pipeline.encoded import EncodedBatch
from ..pipeline.spans import SpanBatch
from .config import ComponentSettings, Configuration, Pipeline
from .extension_references import extension_references
from .switch import Switch

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


@dataclass(eq=False, slots=True)
class _Node:
    """A component. signals: those of its pipelines. pipeline: of a processor. uses: nodes of the extensions that it names."""

    kind: Kind
    settings: ComponentSettings
    signals: frozenset[Signal]
    pipeline: str
    uses: list[_Node]
    counters: PartOfCounters
    component: Component
    started: bool = False

    @property
    def id(self) -> str:
        return self.settings.id

    def is_as(self, settings: ComponentSettings, signals: frozenset[Signal], uses: list[_Node]) -> bool:
        """Whether it runs, and would be made no different."""
        same = self.settings.factory is settings.factory and self.settings.config == settings.config
        return self.started and same and self.signals == signals and self.uses == uses


@dataclass(frozen=True, slots=True)
class _Chain:
    """Of a pipeline what follows its receivers. head: its first consumer."""

    head: Any
    signal: Signal
    processors: list[_Node]
    exporters: list[_Node]


@dataclass(frozen=True, slots=True)
class _Source:
    """A receiver, and for each signal the switch that it hands batches to, with the chains that follow."""

    node: _Node
    switches: Mapping[Signal, Switch]
    chains: Mapping[Signal, list[_Chain]]


class Graph:
    """What a configuration describes, running. Raises StartError if a component refuses to be made.

    tally: gets the spans that every receiver hands on, before pipelines do. before: the graph whose place it takes.
    received: whether any receiver was started.
    """

    def __init__(
        self,
        configuration: Configuration,
        counters: Counters,
        tally: SpanConsumer | None = None,
        before: Graph | None = None,
    ) -> None:
        self._components = configuration.components
        self._pipelines = configuration.pipelines
        self._counters = counters
        self._tally = tally
        self._before = before
        self.received: bool = before is not None and before.received
        self._nodes: list[_Node] = []  # in the order in which they start
        self._extensions: dict[str, _Node] = {}
        self._chains: dict[str, _Chain] = {}
        self._sources: dict[str, _Source] = {}
        try:
            self._make(configuration)
        except BaseException:
            self.discard()
            raise
        self._before = None

    def prepare(self) -> None:
        """Do what disturbs nobody of the start of all that does not run yet. Raises StartError."""
        for node in self._nodes:
            if not node.started and isinstance(node.component, Preparing):
                try:
                    node.component.prepare()
                except StartError as error:
                    raise StartError(f"the {node.kind} {node.id} cannot start: {error}") from error

    def start(self) -> None:
        """Start all that does not run yet, exporters first. Raises StartError; what was started until then is left to
        ``shutdown``."""
        for node in self._nodes:
            if node.started:
                continue
            try:
                node.component.start()
            except StartError as error:
                raise StartError(f"the {node.kind} {node.id} cannot start: {error}") from error
            node.started = True
            self.received |= node.kind == "receiver"
            logger.debug("Started", extra={"kind": node.kind, "component": node.id})
        for watcher in self._watchers():
            watcher.ready()

    def facts(self) -> dict[str, object]:
        """What the components say that they work on, receivers first; a list where several say different things."""
        said: dict[str, list[int | str]] = {}
        for node in reversed(self._nodes):
            facts: Mapping[str, int | str] = node.component.facts() if isinstance(node.component, Factual) else {}
            for name, value in facts.items():
                if value not in said.setdefault(name, []):
                    said[name].append(value)
        return {name: values if len(values) > 1 else values[0] for name, values in said.items()}

    def shutdown(self, deadline: float, successor: Graph | None = None) -> bool:
        """Stop what runs, receivers first, by ``deadline`` (``time.monotonic``), but for what the successor takes over. Whether
        all stopped well.

        A component that fails to stop does not keep the others from flushing.
        """
        kept = set(map(id, successor._nodes)) if successor is not None else set()
        clean, stopping = True, [node for node in reversed(self._nodes) if node.started and id(node) not in kept]
        for watcher in self._watchers():
            watcher.not_ready()
        for node in stopping:
            node.started = False
            try:
                node.component.shutdown(deadline)
            except Exception:
                logger.exception("A component failed to stop", extra={"kind": node.kind, "component": node.id})
                clean = False
        for node in reversed(stopping):
            if isinstance(node.component, Settling):
                node.component.settle(_SETTLE_SECONDS)
        if successor is not None:  # else the last export still says what gauges do
            for node in stopping:
                node.counters.retire()
        return clean

    def pause(self, predecessor: Graph, seconds: float) -> bool:
        """Hold back what receivers that are taken over would hand to other chains than before. Whether what was under way is
        through within this time."""
        deadline = time.monotonic() + seconds
        return all(switch.pause(max(0.0, deadline - time.monotonic())) for switch in self._changes(predecessor))

    def resume(self) -> None:
        """Let all receivers hand on, to the chains of this graph."""
        for source in self._sources.values():
            for signal, switch in source.switches.items():
                switch.resume(self._joined(source.chains[signal]))

    def discard(self) -> None:
        """Forget what was made for this graph and has not started."""
        for node in self._nodes:
            if not node.started:
                if isinstance(node.component, Preparing):
                    node.component.shutdown(time.monotonic())
                node.counters.retire()

    def changes_from(self, predecessor: Graph) -> dict[str, list[str]]:
        """What is done to come here, for the log: ids of what is started, restarted, stopped and kept."""
        names = [{(node.kind, node.id) for node in graph._nodes} for graph in (predecessor, self)]
        kept = {(node.kind, node.id) for node in self._nodes if node.started}
        done = {
            "started": names[1] - names[0],
            "stopped": names[0] - names[1],
            "restarted": (names[0] & names[1]) - kept,
            "kept": kept,
        }
        return {what: sorted(f"{kind} {id_}" for kind, id_ in components) for what, components in done.items()}

    def _watchers(self) -> Iterator[PipelineWatcher]:
        for node in self._extensions.values():
            if node.started and isinstance(node.component, PipelineWatcher):
                yield node.component

    def _changes(self, predecessor: Graph) -> Iterator[Switch]:
        """Switches of receivers that are taken over whose chains are not those of the predecessor."""
        for id_, source in self._sources.items():
            before = predecessor._sources.get(id_)
            if before is not None and before.node is source.node:
                for signal, chains in source.chains.items():
                    if chains != before.chains[signal]:
                        yield source.switches[signal]

    def _make(self, configuration: Configuration) -> None:
        pipelines = configuration.pipelines
        for id_ in configuration.extensions:
            self._extensions[id_] = self._node("extension", id_, frozenset())
        exporters = {id_: self._exporter(id_) for id_ in dict.fromkeys(e for p in pipelines for e in p.exporters)}
        for pipeline in pipelines:
            self._chains[pipeline.id] = self._chain(pipeline, [exporters[id_] for id_ in pipeline.exporters])
        for id_ in dict.fromkeys(r for p in pipelines for r in p.receivers):
            self._sources[id_] = self._source(id_)

    def _exporter(self, id_: str) -> _Node:
        return self._node("exporter", id_, frozenset(p.signal for p in self._pipelines if id_ in p.exporters))

    def _chain(self, pipeline: Pipeline, exporters: list[_Node]) -> _Chain:
        """Taken over as a whole or made anew: each of its parts knows the next one."""
        signals = frozenset({pipeline.signal})
        settings = [self._components["processor"][id_] for id_ in pipeline.processors]
        before = self._before._chains.get(pipeline.id) if self._before is not None else None
        if before is not None and before.exporters == exporters and len(before.processors) == len(settings):
            pairs = zip(before.processors, settings, strict=True)
            if all(node.id == s.id and node.is_as(s, signals, self._uses(s)) for node, s in pairs):
                self._nodes += reversed(before.processors)
                return before
        head = _first([exporter_boundary(node.component, node.id, self._counters) for node in exporters])
        processors: list[_Node] = []
        for of_processor in reversed(settings):
            outgoing = Counted(head, self._counters, "otelcol_processor_outgoing_items", of_processor.id)
            node = self._made("processor", of_processor, signals, pipeline.id, outgoing)
            processors.insert(0, node)
            guarded = processor_boundary(node.component, node.id, self._counters)
            head = Counted(guarded, self._counters, "otelcol_processor_incoming_items", node.id)
        return _Chain(head, pipeline.signal, processors, exporters)

    def _source(self, id_: str) -> _Source:
        fed = [pipeline for pipeline in self._pipelines if id_ in pipeline.receivers]
        signals = frozenset(pipeline.signal for pipeline in fed)
        chains = {signal: [self._chains[p.id] for p in fed if p.signal == signal] for signal in signals}
        settings = self._components["receiver"][id_]
        before = self._before._sources.get(id_) if self._before is not None else None
        if before is not None and before.node.is_as(settings, signals, self._uses(settings)):
            self._nodes.append(before.node)
            return _Source(before.node, before.switches, chains)
        switches = {signal: Switch(self._joined(chains[signal])) for signal in signals}
        node = self._made("receiver", settings, signals, "", Outputs(**switches))
        return _Source(node, switches, chains)

    def _joined(self, chains: Sequence[_Chain]) -> Any:
        """What takes a receiver's data of a signal."""
        consumers = [chain.head for chain in chains]
        if self._tally is not None and chains[0].signal == "traces":
            # It passes nothing on, so what it fails at is no loss.
            consumers.insert(0, Boundary(self._tally, lambda signal, items: None, "tally"))
        return _first(consumers)

    def _node(self, kind: Kind, id_: str, signals: frozenset[Signal]) -> _Node:
        """An extension or exporter: the one before, if it is the same, or made anew."""
        settings = self._components[kind][id_]
        for node in self._before._nodes if self._before is not None else ():
            if node.kind == kind and node.id == id_ and node.is_as(settings, signals, self._uses(settings)):
                self._nodes.append(node)
                return node
        return self._made(kind, settings, signals)

    def _made(
        self, kind: Kind, settings: ComponentSettings, signals: frozenset[Signal], pipeline: str = "", *behind: Any
    ) -> _Node:
        counters = PartOfCounters(self._counters)
        extensions = {node.id: node.component for node in self._nodes if node.kind == "extension"}
        context = Context(settings.id, counters, signals, pipeline, extensions)
        component = settings.factory.create(settings.config, context, *behind)
        node = _Node(kind, settings, signals, pipeline, self._uses(settings), counters, component)
        self._nodes.append(node)
        return node

    def _uses(self, settings: ComponentSettings) -> list[_Node]:
        named = {reference.id for reference in extension_references(settings.config)}
        return [node for node in self._nodes if node.kind == "extension" and node.id in named]


def _first(consumers: Sequence[Any]) -> Any:
    """The only consumer, or all of them. Each is of a type that takes what comes, as configurations are checked for."""
    return consumers[0] if len(consumers) == 1 else FanOut(consumers)
