"""The agent's own metrics and logs over OTLP, by the OpenTelemetry SDK.

The only module that imports the SDK (5 MB, its gRPC exporter 20 more), so it is itself imported only when a
configuration has readers or log processors. Spans never come here: they have their own exporters.

Metrics are observable instruments over :class:`~wirespan.pipeline.counters.Counters`. A counter appears when
something is counted for the first time, so instruments are created just before a collection, from one snapshot that
all their callbacks then share.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from threading import Event, Lock, Thread
from urllib.parse import urlsplit

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.metrics import CallbackOptions, Meter, Observation
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExporter
from opentelemetry.sdk.metrics import MeterProvider, MetricsTimeoutError
from opentelemetry.sdk.metrics.export import MetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource

from .. import __version__
from ..pipeline.counters import CounterKey, Counters
from .emitted import SCOPE, MetricFacts, documented_metrics
from .logs import fields
from .settings import LogsSettings, OtlpSettings, PeriodicReader, TelemetrySettings

logger = logging.getLogger(__name__)

_SEVERITIES = {
    logging.DEBUG: SeverityNumber.DEBUG,
    logging.INFO: SeverityNumber.INFO,
    logging.WARNING: SeverityNumber.WARN,
    logging.ERROR: SeverityNumber.ERROR,
    logging.CRITICAL: SeverityNumber.FATAL,
}


class OwnTelemetry:
    """Exports metrics and logs from construction to ``shutdown``. attributes: of the resource."""

    def __init__(self, settings: TelemetrySettings, counters: Counters, attributes: Mapping[str, str]) -> None:
        resource = Resource.create(attributes)
        pushed = settings.metrics.pushed
        self._metrics = _Metrics(pushed, resource, counters) if pushed else None
        self._logs = _logs(settings.logs, resource) if settings.logs.processors else None
        self._handler = _LogHandler(self._logs) if self._logs else None
        if self._handler:
            logging.getLogger("wirespan").addHandler(self._handler)

    def shutdown(self, timeout: float) -> None:
        """Export a last time, for at most ``timeout`` seconds: own telemetry must not hold up the end."""
        if self._handler:
            logging.getLogger("wirespan").removeHandler(self._handler)
        flushing = self._metrics.stop() if self._metrics else []
        if self._logs:
            flush = Thread(target=self._logs.shutdown, name="own logs' last export", daemon=True)
            flush.start()
            flushing.append(flush)
        deadline = time.monotonic() + timeout
        for thread in flushing:
            thread.join(max(0.0, deadline - time.monotonic()))


class _Metrics:
    """A thread for each reader, which creates new instruments, collects and exports.

    The SDK's own periodic thread (switched off by an infinite interval) leaves no moment between two collections in
    which to create an instrument.
    """

    def __init__(self, settings: Sequence[PeriodicReader], resource: Resource, counters: Counters) -> None:
        exporters = [_metric_exporter(reader.exporter.otlp) for reader in settings]
        readers = [PeriodicExportingMetricReader(exporter, math.inf) for exporter in exporters]
        self._provider = MeterProvider(readers, resource, shutdown_on_exit=False)
        self._instruments = _Instruments(self._provider.get_meter(SCOPE, __version__), counters)
        self._stopped = Event()
        self._threads = [
            Thread(target=self._export, args=(reader, setting.interval / 1_000), name="own metrics", daemon=True)
            for reader, setting in zip(readers, settings, strict=True)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> list[Thread]:
        """Have each thread export a last time and end; the threads, to wait for."""
        self._stopped.set()
        return list(self._threads)

    def _export(self, reader: PeriodicExportingMetricReader, interval: float) -> None:
        while not self._stopped.wait(interval):
            self._collect(reader)
        self._collect(reader)
        reader.shutdown()

    def _collect(self, reader: PeriodicExportingMetricReader) -> None:
        self._instruments.refresh()
        try:
            reader.collect()
        except MetricsTimeoutError:
            logger.warning("Own metrics were not collected in time; the next export catches up")


class _Instruments:
    """Observable instruments for all that the counters hold, by metric name."""

    def __init__(self, meter: Meter, counters: Counters) -> None:
        self._meter = meter
        self._counters = counters
        self._facts = documented_metrics()
        self._lock = Lock()
        self._values: dict[str, list[Observation]] = {}
        self._names: set[str] = set()

    def refresh(self) -> None:
        """Read everything once, and create what is new."""
        with self._lock:
            sums = _by_name(self._counters.snapshot()) | _by_name(self._counters.durations())
            gauges = _by_name(self._counters.gauges())
            for name in sums.keys() - self._names:
                self._meter.create_observable_counter(name, [self._callback(name)], *self._facts_of(name))
            for name in gauges.keys() - self._names:
                self._meter.create_observable_gauge(name, [self._callback(name)], *self._facts_of(name))
            self._values = {**sums, **gauges}
            self._names |= self._values.keys()

    def _facts_of(self, name: str) -> MetricFacts:
        """Nothing is known of what a plug-in counts."""
        return self._facts.get(name, MetricFacts())

    def _callback(self, name: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        return lambda options: self._values.get(name, [])


def _by_name(values: Mapping[CounterKey, int] | Mapping[CounterKey, float]) -> dict[str, list[Observation]]:
    observations: dict[str, list[Observation]] = {}
    for (name, attributes), value in values.items():
        observations.setdefault(name, []).append(Observation(value, dict(attributes)))
    return observations


def _logs(settings: LogsSettings, resource: Resource) -> LoggerProvider:
    provider = LoggerProvider(resource, shutdown_on_exit=False)
    for processor in settings.processors:
        exporter = _log_exporter(processor.batch.exporter.otlp)
        provider.add_log_record_processor(BatchLogRecordProcessor(exporter, processor.batch.schedule_delay))
    return provider


class _LogHandler(logging.Handler):
    """Gives the agent's log records to the SDK, ``extra`` as attributes.

    It hangs on the logger ``wirespan``, not on the root: what the SDK logs about a failed export of logs would
    otherwise be exported as a log.
    """

    def __init__(self, provider: LoggerProvider) -> None:
        super().__init__()
        self._logger = provider.get_logger(SCOPE, __version__)

    def emit(self, record: logging.LogRecord) -> None:
        exception = record.exc_info[1] if record.exc_info else None
        self._logger.emit(
            LogRecord(
                timestamp=int(record.created * 1e9),
                severity_number=_SEVERITIES.get(record.levelno, SeverityNumber.UNSPECIFIED),
                severity_text=record.levelname,
                body=record.getMessage(),
                attributes=fields(record),
                exception=exception,
            )
        )


def _silence_grpc() -> None:
    """Before an exporter of the SDK imports it."""
    from ..exporters import quiet_grpc  # noqa: F401


def _metric_exporter(settings: OtlpSettings) -> MetricExporter:
    if settings.protocol == "grpc":
        _silence_grpc()
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcExporter

        return GrpcExporter(settings.endpoint, settings.insecure, headers=settings.headers)
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpExporter

    return HttpExporter(_signal_url(settings.endpoint, "metrics"), headers=settings.headers)


def _log_exporter(settings: OtlpSettings) -> LogRecordExporter:
    if settings.protocol == "grpc":
        _silence_grpc()
        from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcExporter

        return GrpcExporter(settings.endpoint, settings.insecure, headers=settings.headers)
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpExporter

    return HttpExporter(_signal_url(settings.endpoint, "logs"), headers=settings.headers)


def _signal_url(endpoint: str, signal: str) -> str:
    """An endpoint with the signal's path, unless it has one of its own."""
    return endpoint if urlsplit(endpoint).path.strip("/") else f"{endpoint.rstrip('/')}/v1/{signal}"
