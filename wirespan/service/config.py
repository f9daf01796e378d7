"""A configuration: read, checked against every component's model, and cross-referenced.

The order is the Collector's: text → tree (:mod:`.document`) → each component's own model → references between
pipelines and components. Every step adds to one list of problems, and only the end raises, so that all of them are
reported at once. What is odd but harmless (an unused component, a former type name) is a warning.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TypeVar

from ..pipeline.component import ComponentConfig, ExtensionOf, Factory, Kind, Signal
from .document import ConfigurationError, Document, Problem, TreePath, read
from .extension_references import extension_references
from .registry import LoadError, Registry
from .settings import PipelineSettings, ServiceSettings, TelemetrySettings
from .validation import suggestion, validate, validate_parts, value_text

Settings = TypeVar("Settings", bound=ComponentConfig)

PIPELINE_KINDS: tuple[Kind, ...] = ("receiver", "processor", "exporter")
KINDS: tuple[Kind, ...] = (*PIPELINE_KINDS, "extension")
SIGNALS: tuple[Signal, ...] = ("traces", "metrics", "logs")

#: The Collector's rule: a type, and a name that tells instances of the type apart.
_COMPONENT_ID = re.compile(r"(?P<type>[A-Za-z][A-Za-z0-9_]{0,62})(/[^\s/]{1,1024})?")


class _Sections(ComponentConfig):
    """The top level. What is in the sections of components is their factories' to judge."""

    receivers: dict[str, object] | None = None
    processors: dict[str, object] | None = None
    exporters: dict[str, object] | None = None
    extensions: dict[str, object] | None = None
    service: dict[str, object] | None = None


@dataclass(frozen=True, slots=True)
class ComponentSettings:
    """A configured component, known by ``id`` to pipelines, logs and metrics."""

    id: str
    factory: Factory
    config: ComponentConfig


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The ids of a pipeline's components."""

    id: str
    receivers: tuple[str, ...]
    processors: tuple[str, ...]
    exporters: tuple[str, ...]
    signal: Signal = "traces"


@dataclass(frozen=True, slots=True)
class Configuration:
    """A configuration that is valid as a whole. components: by kind and id, unused ones included. extensions: ids of those
    that run."""

    components: Mapping[Kind, Mapping[str, ComponentSettings]]
    pipelines: tuple[Pipeline, ...]
    telemetry: TelemetrySettings
    warnings: tuple[Problem, ...]
    extensions: tuple[str, ...] = ()


def load(
    path: Path,
    environment: Mapping[str, str],
    assignments: Sequence[str] = (),
    registry: Registry | None = None,
    further: Sequence[Path] = (),
) -> Configuration:
    """Read a file, lay further ones over it, apply ``--set`` assignments and check everything; raises ConfigurationError with
    all problems."""
    return check(read_all((path, *further), environment, assignments), registry)


def read_all(paths: Sequence[Path], environment: Mapping[str, str], assignments: Sequence[str]) -> Document:
    """What the files say together, a later one over those before it. Raises ConfigurationError for what cannot be read."""
    document = read(paths[0], environment)
    for path in paths[1:]:
        document.merge(read(path, environment))
    for assignment in assignments:
        document.set(assignment, environment)
    return document


def check(document: Document, registry: Registry | None = None) -> Configuration:
    """Raises ConfigurationError with all problems."""
    return _Check(document, registry or Registry()).configuration()


class _Check:
    """Checks one document; problems and warnings gather on the way."""

    def __init__(self, document: Document, registry: Registry) -> None:
        self._document = document
        self._registry = registry
        self._problems = list(document.problems)
        self._warnings: list[Problem] = []
        self._left_out: list[TreePath] = []
        self._configured: dict[Kind, set[str]] = {kind: set() for kind in KINDS}
        self._factories: dict[tuple[Kind, str], Factory] = {}  # of those that are of a known type
        self._valid: dict[tuple[Kind, str], ComponentConfig] = {}

    def configuration(self) -> Configuration:
        sections = self._valid_parts(_Sections, (), self._document.tree)
        components = {kind: self._components(kind, getattr(sections, f"{kind}s") or {}) for kind in KINDS}
        service = self._valid_parts(ServiceSettings, ("service",), sections.service)
        pipelines = self._pipelines(service.pipelines)
        self._listed("extension", ("service", "extensions"), service.extensions)
        self._refuse_conflicts(components["receiver"], pipelines)
        self._check_extensions(components, used_components(pipelines, service.extensions), service.extensions)
        self._warn_of_unused(used_components(pipelines, service.extensions))
        if self._problems:
            raise ConfigurationError(self._in_order(self._problems))
        extensions = tuple(service.extensions)
        return Configuration(components, pipelines, service.telemetry, tuple(self._warnings), extensions)

    def _valid_parts(self, model: type[Settings], path: TreePath, tree: object) -> Settings:
        settings, problems, left_out = validate_parts(model, self._document, path, tree)
        self._problems += problems
        self._left_out += left_out
        return settings

    def _is_whole(self, path: TreePath) -> bool:
        """Whether nothing at ``path`` was left out for a mistake in it; else what seems to be missing may be there."""
        return not any(left_out[: len(path)] == path[: len(left_out)] for left_out in self._left_out)

    def _in_order(self, problems: Iterable[Problem]) -> list[Problem]:
        """By line; where the text itself is wrong (no such variable), what follows from it is left out."""
        textual = {problem.path for problem in self._document.problems if problem.path}
        kept = [p for p in problems if p.path not in textual or p in self._document.problems]
        return sorted(dict.fromkeys(kept), key=lambda problem: problem.position.line)

    def _report(self, path: TreePath, message: str) -> None:
        self._problems.append(self._document.problem(path, message))

    def _components(self, kind: Kind, section: Mapping[str, object]) -> dict[str, ComponentSettings]:
        components = {}
        for component_id, tree in section.items():
            self._configured[kind].add(component_id)
            path = (f"{kind}s", component_id)
            factory = self._factory(kind, component_id, path)
            if factory is None:
                continue
            self._factories[kind, component_id] = factory
            config = validate(factory.config, self._document, path, tree)
            if isinstance(config, list):
                self._problems += config
            else:
                components[component_id] = ComponentSettings(component_id, factory, config)
                self._valid[kind, component_id] = config
        return components

    def _factory(self, kind: Kind, component_id: str, path: TreePath) -> Factory | None:
        matched = _COMPONENT_ID.fullmatch(component_id)
        if matched is None:
            self._report(path, f'{value_text(component_id, ())} is not an id: "type" or "type/name"')
            return None
        type_name = matched["type"]
        try:
            factory = self._registry.find(kind, type_name)
            names = self._registry.names(kind) if factory is None else []
        except LoadError as error:
            self._report(path, str(error))
            return None
        if factory is None:
            hint = suggestion(type_name, names) or f"; there are {', '.join(names) or 'none'}"
            self._report(path, f"unknown type of {kind}{hint}")
        elif type_name != factory.name:
            message = f'the type "{type_name}" is now called "{factory.name}"; the old name will go away'
            self._warnings.append(self._document.problem(path, message))
        return factory

    def _pipelines(self, pipelines: Mapping[str, PipelineSettings]) -> tuple[Pipeline, ...]:
        if not pipelines and self._is_whole(("service", "pipelines")):
            message = "at least one is needed, such as traces: {receivers: [ebpf], exporters: [debug]}"
            self._report(("service", "pipelines"), message)
        return tuple(self._pipeline(pipeline_id, settings) for pipeline_id, settings in pipelines.items())

    def _pipeline(self, pipeline_id: str, settings: PipelineSettings) -> Pipeline:
        path = ("service", "pipelines", pipeline_id)
        matched = _COMPONENT_ID.fullmatch(pipeline_id)
        written = matched["type"] if matched else pipeline_id
        signal = next((known for known in SIGNALS if known == written), None)
        if signal is None:
            hint = suggestion(written, SIGNALS) or f"; so far there are {', '.join(SIGNALS)}"
            self._report(path, f'no signal "{written}"{hint}')
        references: dict[Kind, list[str]] = {
            "receiver": settings.receivers,
            "processor": settings.processors,
            "exporter": settings.exporters,
        }
        for kind in PIPELINE_KINDS:
            self._references(kind, (*path, f"{kind}s"), references[kind], signal)
        if signal == "traces":
            self._take_encoded_spans(path, references)
        receivers, processors, exporters = (tuple(references[kind]) for kind in PIPELINE_KINDS)
        return Pipeline(pipeline_id, receivers, processors, exporters, signal or "traces")

    def _references(self, kind: Kind, path: TreePath, references: Sequence[str], signal: Signal | None) -> None:
        if not references and kind != "processor" and self._is_whole(path):
            self._report(path, f"at least one {kind} is needed")
        for index in self._listed(kind, path, references):
            if signal is not None:
                self._supported(kind, (*path, index), references[index], signal)

    def _listed(self, kind: Kind, path: TreePath, references: Sequence[str]) -> list[int]:
        """Report what is listed twice or not configured; the indices of the others."""
        configured, fine = self._configured[kind], []
        for index, reference in enumerate(references):
            if reference in references[:index]:
                self._report((*path, index), f'"{reference}" is listed twice')
            elif reference not in configured and self._is_whole((f"{kind}s",)):
                self._report((*path, index), self._not_configured(kind, reference))
            else:
                fine.append(index)
        return fine

    def _not_configured(self, kind: Kind, reference: str) -> str:
        configured = self._configured[kind]
        hint = suggestion(reference, configured) or f"; there are {', '.join(sorted(configured)) or 'none'}"
        return f'"{reference}" is not configured under {kind}s{hint}'

    def _supported(self, kind: Kind, path: TreePath, reference: str, signal: Signal) -> None:
        """Report a component that cannot be in a pipeline of this signal, or not as it is configured."""
        factory = self._factories.get((kind, reference))
        if factory is None:
            return
        if signal not in factory.signals:
            able = ", ".join(self._registry.supporting(kind, signal)) or "none"
            self._report(path, f'"{reference}" does not support {signal}; {kind}s that do: {able}')
            return
        config = self._valid.get((kind, reference))
        misfit = factory.misfit(config, signal) if factory.misfit is not None and config is not None else None
        if misfit is not None:
            self._report(path, f'"{reference}" cannot be in a pipeline of {signal}: {misfit}')

    def _take_encoded_spans(self, path: TreePath, references: Mapping[Kind, Sequence[str]]) -> None:
        """Report components that take spans in columns alone, behind a receiver that hands on requests."""
        receiver = next((id_ for id_ in references["receiver"] if self._has_encoded_spans("receiver", id_)), None)
        behind: tuple[Kind, ...] = ("processor", "exporter")
        for kind in behind if receiver is not None else ():
            for index, reference in enumerate(references[kind]):
                if not self._has_encoded_spans(kind, reference):
                    message = f'"{reference}" takes no spans that come by OTLP, as those of "{receiver}" do'
                    self._report((*path, f"{kind}s", index), message)

    def _has_encoded_spans(self, kind: Kind, reference: str) -> bool:
        """Of what is not configured nothing is known; that is reported elsewhere."""
        factory = self._factories.get((kind, reference))
        return kind != "receiver" if factory is None else factory.encoded_spans

    def _refuse_conflicts(self, receivers: Mapping[str, ComponentSettings], pipelines: Sequence[Pipeline]) -> None:
        """Receivers that run, and would disturb each other."""
        used = {id_ for pipeline in pipelines for id_ in pipeline.receivers}
        running = [settings for settings in receivers.values() if settings.id in used]
        for one, other in combinations(running, 2):
            conflict = other.factory.conflict if one.factory is other.factory else None
            message = conflict(one.config, other.config) if conflict else None
            if message is not None:
                self._report(("receivers", other.id), f'with "{one.id}", {message}')

    def _check_extensions(
        self,
        components: Mapping[Kind, Mapping[str, ComponentSettings]],
        used: Mapping[Kind, Set[str]],
        running: Sequence[str],
    ) -> None:
        """Report references of what runs to extensions that do not, or do not offer what is wanted of them."""
        for kind in KINDS:
            for settings in (settings for id_, settings in components[kind].items() if id_ in used[kind]):
                for path, reference, wanted in extension_references(settings.config):
                    self._check_extension((f"{kind}s", settings.id, *path), reference, wanted, running)

    def _check_extension(self, path: TreePath, reference: str, wanted: ExtensionOf, running: Sequence[str]) -> None:
        factory = self._factories.get(("extension", reference))
        if reference not in self._configured["extension"]:
            if self._is_whole(("extensions",)):
                self._report(path, self._not_configured("extension", reference))
        elif reference not in running:
            if self._is_whole(("service", "extensions")):
                self._report(path, f'"{reference}" does not run; add it to service.extensions')
        elif factory is not None and wanted.offer not in factory.offers:
            able = [id_ for id_ in running if self._offers(id_, wanted)]
            hint = f"extensions that do: {', '.join(able) or 'none'}"
            self._report(path, f'"{reference}" offers no {wanted.offer.__name__}; {hint}')

    def _offers(self, extension_id: str, wanted: ExtensionOf) -> bool:
        factory = self._factories.get(("extension", extension_id))
        return factory is not None and wanted.offer in factory.offers

    def _warn_of_unused(self, used: Mapping[Kind, Set[str]]) -> None:
        for kind in KINDS:
            place = "not in service.extensions" if kind == "extension" else "in no pipeline"
            for component_id in sorted(self._configured[kind] - used[kind]):
                self._warnings.append(
                    self._document.problem((f"{kind}s", component_id), f"is {place}, so it is not started")
                )


def used_components(pipelines: Sequence[Pipeline], extensions: Sequence[str]) -> dict[Kind, Set[str]]:
    """The ids of what runs, by kind."""
    return {
        "receiver": {id_ for pipeline in pipelines for id_ in pipeline.receivers},
        "processor": {id_ for pipeline in pipelines for id_ in pipeline.processors},
        "exporter": {id_ for pipeline in pipelines for id_ in pipeline.exporters},
        "extension": set(extensions),
    }
