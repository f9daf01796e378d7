"""Which component types exist, and where their code is.

Built-in types are names of modules, imported when a configuration mentions the type: gRPC alone is 15 MB that a run
without it should not pay. Types of other packages come by the entry point group ``wirespan.components``, which is
read only for a type that is not built in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import import_module
from types import MappingProxyType

from ..pipeline.component import Factory, Kind, Signal, third_party_factories

#: Kind → type → "module: attribute". A new built-in component is one line here.
BUILT_IN: Mapping[Kind, Mapping[str, str]] = MappingProxyType(
    {
        "receiver": {
            "ebpf": "wirespan.receiver.ebpf:FACTORY",
            "otlp": "wirespan.receiver.otlp.receiver:FACTORY",
        },
        "processor": {
            "anomaly": "wirespan.processors.anomaly.processor:FACTORY",
            "attributes": "wirespan.processors.attributes:FACTORY",
            "batch": "wirespan.processors.batch:FACTORY",
            "k8s_attributes": "wirespan.processors.k8s_attributes.processor:FACTORY",
            "memory_limiter": "wirespan.processors.memory_limiter:FACTORY",
            "redaction": "wirespan.processors.redaction:FACTORY",
            "resource": "wirespan.processors.resource:FACTORY",
            "resource_detection": "wirespan.processors.resource_detection:FACTORY",
        },
        "exporter": {
            "debug": "wirespan.exporters.debug:FACTORY",
            "file": "wirespan.exporters.file:FACTORY",
            "otlp_grpc": "wirespan.exporters.otlp_grpc:FACTORY",
            "otlp_http": "wirespan.exporters.otlp_http:FACTORY",
            "terminal": "wirespan.exporters.terminal.exporter:FACTORY",
        },
        "extension": {
            "basicauth": "wirespan.extensions.basic_auth:FACTORY",
            "bearertokenauth": "wirespan.extensions.bearer_token_auth:FACTORY",
            "file_storage": "wirespan.extensions.file_storage.extension:FACTORY",
            "health_check": "wirespan.extensions.health_check:FACTORY",
        },
    }
)

#: Kind → former type → type. The factories say the same, but cost an import to ask.
DEPRECATED: Mapping[Kind, Mapping[str, str]] = MappingProxyType(
    {
        "receiver": {},
        "processor": {"k8sattributes": "k8s_attributes", "resourcedetection": "resource_detection"},
        "exporter": {"otlp": "otlp_grpc", "otlphttp": "otlp_http"},
        "extension": {},
    }
)


class LoadError(Exception):
    """The code of a component cannot be imported: its installation is incomplete, or a plug-in is broken."""


class Registry:
    """Finds factories. third_party: reads the entry points; called at most once."""

    def __init__(self, third_party: Callable[[], list[Factory]] = third_party_factories) -> None:
        self._read_third_party = third_party
        self._third_party: dict[tuple[str, str], Factory] | None = None

    def find(self, kind: Kind, type_name: str) -> Factory | None:
        """The factory of a type or of its deprecated name; raises LoadError."""
        target = BUILT_IN[kind].get(DEPRECATED[kind].get(type_name, type_name))
        if target is None:
            return self._plugins().get((kind, type_name))
        module, _, attribute = target.partition(":")
        try:
            factory = getattr(import_module(module), attribute)
        except ImportError as error:
            raise LoadError(f"cannot be loaded: {error}; install wirespan again, with what it depends on") from error
        assert isinstance(factory, Factory)
        return factory

    def names(self, kind: Kind) -> list[str]:
        """All types of a kind, without the deprecated names; raises LoadError."""
        plugins = {factory.name for factory in self._plugins().values() if factory.kind == kind}
        return sorted({*BUILT_IN[kind], *plugins})

    def supporting(self, kind: Kind, signal: Signal) -> list[str]:
        """The types of a kind that can be in a pipeline of a signal, as far as their code can be imported."""
        return [factory.name for factory in self.factories(kind) if signal in factory.signals]

    def factories(self, kind: Kind) -> list[Factory]:
        """All of a kind whose code can be imported, by name. Imports all of it."""
        found = []
        for name in self.names(kind):
            with suppress(LoadError):
                factory = self.find(kind, name)
                found += [factory] if factory else []
        return found

    def _plugins(self) -> dict[tuple[str, str], Factory]:
        if self._third_party is None:
            try:
                factories = self._read_third_party()
            except Exception as error:  # whatever a stranger's module does when it is imported
                raise LoadError(f"an installed plug-in cannot be loaded: {type(error).__name__}: {error}") from error
            self._third_party = {
                (factory.kind, name): factory
                for factory in factories
                for name in (factory.name, *factory.deprecated_names)
            }
        return self._third_party
