"""``resource_detection``: adds to every resource what is found out once, at the start, about where the agent runs."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from time import monotonic
from typing import Annotated, Any, Final, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from ..pipeline.component import (
    ALL_SIGNALS,
    ComponentConfig,
    Context,
    Factory,
    Outcome,
    SpanConsumer,
    StartError,
)
from ..pipeline.duration import Duration, within
from ..pipeline.encoded import EncodedBatch
from ..pipeline.otlp_fields import SCHEMA_URL
from ..pipeline.spans import SpanBatch
from .detectors import DetectionError, Found, in_background, of_docker, of_environment, of_system
from .resources import ResourceChanges
from .values import Attributes

logger = logging.getLogger(__name__)

#: the part of ``timeout`` after which a name server that does not answer is done without
_OF_DNS: Final = 0.5

Detector: TypeAlias = Literal["env", "system", "docker"]
SystemAttribute: TypeAlias = Literal[
    "host.name",
    "host.id",
    "host.arch",
    "host.ip",
    "host.mac",
    "host.interface",
    "host.cpu.vendor.id",
    "host.cpu.family",
    "host.cpu.model.id",
    "host.cpu.model.name",
    "host.cpu.stepping",
    "host.cpu.cache.l2.size",
    "os.type",
    "os.description",
    "os.name",
    "os.version",
    "os.build.id",
]
DockerAttribute: TypeAlias = Literal["host.name", "os.type", "container.name", "container.image.name"]
HostnameSource: TypeAlias = Literal["dns", "os", "cname", "lookup"]


class Enabled(ComponentConfig):
    enabled: bool


class EnvironmentFilter(ComponentConfig):
    """included: None: all."""

    included: list[str] | None = Field(default=None, min_length=1)
    excluded: list[str] | None = Field(default=None, min_length=1)


class EnvironmentSettings(ComponentConfig):
    attributes: EnvironmentFilter = EnvironmentFilter()


class SystemSettings(ComponentConfig):
    """resource_attributes: others than host.name and os.type are found only if they are enabled."""

    hostname_sources: list[HostnameSource] = Field(default=["dns", "os"], min_length=1)
    resource_attributes: dict[SystemAttribute, Enabled] = Field(default_factory=dict)


class DockerSettings(ComponentConfig):
    """Likewise."""

    resource_attributes: dict[DockerAttribute, Enabled] = Field(default_factory=dict)


class ResourceDetectionSettings(ComponentConfig):
    """override: what is found replaces what a resource says. attributes: no others than these; empty: all."""

    detectors: list[Detector] = Field(default=["env"], min_length=1)
    override: bool = True
    timeout: Annotated[Duration, within("10ms", "5m")] = 5.0
    attributes: list[str] = Field(default_factory=list)
    fail_on_missing_metadata: bool = False
    env: EnvironmentSettings = EnvironmentSettings()
    system: SystemSettings = SystemSettings()
    docker: DockerSettings = DockerSettings()

    @model_validator(mode="after")
    def _names_a_detector_once(self) -> Self:
        twice = sorted({name for name in self.detectors if self.detectors.count(name) > 1})
        if twice:
            raise ValueError(f"detectors: {', '.join(twice)} is listed twice")
        return self


class ResourceDetectionProcessor:
    def __init__(self, settings: ResourceDetectionSettings, context: Context, consumer: SpanConsumer) -> None:
        self._settings, self._context, self._consumer = settings, context, consumer
        self._found: Found = {}
        self._resources = ResourceChanges(self._change)

    def start(self) -> None:
        """Detect; what takes longer than ``timeout`` is done without. Of several detectors the first one counts."""
        under_way = {name: in_background(self._detector(name)) for name in self._settings.detectors}
        until = monotonic() + self._settings.timeout
        for name, future in under_way.items():
            found = self._result(name, future, max(0.0, until - monotonic()))
            self._found |= {key: value for key, value in found.items() if key not in self._found}
        if self._settings.attributes:
            self._found = {key: value for key, value in self._found.items() if key in self._settings.attributes}
        described = bool({*self._settings.detectors} - {"env"} and self._found)
        self._resources = ResourceChanges(self._change, SCHEMA_URL if described else "")
        logger.info("Resource detected", extra={"processor": self._context.id, "resource": dict(self._found)})

    def consume(self, batch: SpanBatch) -> None:
        self._consumer.consume(self._resources.of_columns(batch) if self._found else batch)

    def consume_encoded(self, batch: EncodedBatch) -> Outcome:
        return self._consumer.consume_encoded(self._resources.of_request(batch) if self._found else batch)

    def shutdown(self, deadline: float) -> None:
        """Nothing is held back."""

    def _detector(self, name: Detector) -> Callable[[], Found]:
        settings = self._settings
        environment = dict(os.environ)
        if name == "env":
            return lambda: _chosen(of_environment(environment), settings.env.attributes)
        if name == "docker":
            wanted = _wanted(settings.docker.resource_attributes)
            return lambda: of_docker(wanted, settings.timeout, environment)
        system = _wanted(settings.system.resource_attributes)
        return lambda: of_system(system, settings.system.hostname_sources, settings.timeout * _OF_DNS)

    def _result(self, name: Detector, future: Future[Found], seconds: float) -> Found:
        try:
            return future.result(seconds)
        except TimeoutError:
            problem = f"no answer in {self._settings.timeout:g} s"
        except DetectionError as error:
            problem = str(error)
        if self._settings.fail_on_missing_metadata:
            raise StartError(f"the detector {name} found nothing: {problem}")
        logger.warning(
            "A detector found nothing. Going on without it.",
            extra={"processor": self._context.id, "detector": name, "problem": problem},
        )
        return {}

    def _change(self, attributes: Attributes) -> None:
        for key, value in self._found.items():
            if self._settings.override or key not in attributes:
                attributes[key] = value


def _wanted(enabled: Mapping[Any, Enabled]) -> frozenset[str]:
    wanted = {"host.name", "os.type"} | {key for key, entry in enabled.items() if entry.enabled}
    return frozenset(wanted - {key for key, entry in enabled.items() if not entry.enabled})


def _chosen(found: Found, chosen: EnvironmentFilter) -> Found:
    included, excluded = chosen.included, chosen.excluded or ()
    return {key: value for key, value in found.items() if (included is None or key in included) and key not in excluded}


FACTORY = Factory(
    "processor",
    "resource_detection",
    ResourceDetectionSettings,
    ResourceDetectionProcessor,
    deprecated_names=("resourcedetection",),
    signals=ALL_SIGNALS,
    encoded_spans=True,
)
