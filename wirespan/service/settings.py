"""The ``service`` section: pipelines, and the agent's own logs and metrics, in the Collector's shape.

Own telemetry follows the OpenTelemetry declarative configuration, as the Collector does: a list of readers (metrics)
and of processors (logs), each with an exporter. Times are milliseconds there, so they are here.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from ..pipeline.component import ComponentConfig


class OtlpSettings(ComponentConfig):
    """Where own telemetry goes. endpoint: for HTTP a URL, to which ``/v1/<signal>`` is added if it has no path."""

    protocol: Literal["grpc", "http/protobuf"] = "http/protobuf"
    endpoint: str = Field(min_length=1)
    insecure: bool | None = None
    headers: dict[str, str] = Field(default_factory=dict)


class OtlpExporter(ComponentConfig):
    otlp: OtlpSettings


class PeriodicReader(ComponentConfig):
    """interval: milliseconds between two exports."""

    interval: int = Field(default=60_000, ge=100, le=3_600_000)
    exporter: OtlpExporter


class PrometheusSettings(ComponentConfig):
    """Where Prometheus finds own metrics, at ``/metrics``; how names are spelled, with the Collector's defaults."""

    host: str = Field(default="localhost", pattern=r"^[^\s/\[\]]+$")
    port: int = Field(default=8888, ge=0, le=65_535)
    without_scope_info: bool = True
    without_type_suffix: bool = True
    without_units: bool = True


class PrometheusExporter(ComponentConfig):
    prometheus: PrometheusSettings


class PullReader(ComponentConfig):
    exporter: PrometheusExporter


class MetricReader(ComponentConfig):
    periodic: PeriodicReader | None = None
    pull: PullReader | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.periodic is None) == (self.pull is None):
            raise ValueError("needs periodic or pull, one of them, with its exporter")
        return self


def _default_readers() -> list[MetricReader]:
    return [MetricReader(pull=PullReader(exporter=PrometheusExporter(prometheus=PrometheusSettings())))]


class MetricsSettings(ComponentConfig):
    """level: of the Collector's levels only `none` is told apart. Without `periodic` readers no OpenTelemetry SDK is in memory."""

    level: Literal["none", "basic", "normal", "detailed"] = "normal"
    readers: list[MetricReader] = Field(default_factory=_default_readers)

    @property
    def pushed(self) -> list[PeriodicReader]:
        return [reader.periodic for reader in self._read if reader.periodic is not None]

    @property
    def pulled(self) -> list[PrometheusSettings]:
        return [reader.pull.exporter.prometheus for reader in self._read if reader.pull is not None]

    @property
    def is_default(self) -> bool:
        """Whether nobody asked for these readers."""
        return "readers" not in self.model_fields_set

    @property
    def _read(self) -> list[MetricReader]:
        return [] if self.level == "none" else self.readers


class BatchProcessor(ComponentConfig):
    """schedule_delay: milliseconds between two exports."""

    schedule_delay: int = Field(default=1_000, ge=100, le=3_600_000)
    exporter: OtlpExporter


class LogProcessor(ComponentConfig):
    batch: BatchProcessor


class LogsSettings(ComponentConfig):
    """Logs always go to stderr; processors send them elsewhere as well."""

    level: Literal["debug", "info", "warn", "error"] = "info"
    encoding: Literal["console", "json"] = "console"
    processors: list[LogProcessor] = Field(default_factory=list)


class TelemetrySettings(ComponentConfig):
    logs: LogsSettings = LogsSettings()
    metrics: MetricsSettings = MetricsSettings()


class PipelineSettings(ComponentConfig):
    """Ids of components, in the order in which data passes."""

    receivers: list[str] = Field(default_factory=list)
    processors: list[str] = Field(default_factory=list)
    exporters: list[str] = Field(default_factory=list)


class ServiceSettings(ComponentConfig):
    """extensions: ids of those that run, in the order in which they start."""

    extensions: list[str] = Field(default_factory=list)
    pipelines: dict[str, PipelineSettings] = Field(default_factory=dict)
    telemetry: TelemetrySettings = TelemetrySettings()
