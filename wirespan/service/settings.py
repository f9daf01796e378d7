"""The ``service`` section: pipelines, and the agent's own logs and metrics, in the Collector's shape.

Own telemetry follows the OpenTelemetry declarative configuration, as the Collector does: a list of readers (metrics)
and of processors (logs), each with an OTLP exporter. Times are milliseconds there, so they are here.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

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


class MetricReader(ComponentConfig):
    periodic: PeriodicReader


class MetricsSettings(ComponentConfig):
    """No readers, no OpenTelemetry SDK in memory."""

    readers: list[MetricReader] = Field(default_factory=list)


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
