"""The agent's own logs and metrics as a configuration wants them, and as another one does that takes its place.

What is not configured costs no memory: only what is needed is imported.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ..pipeline.component import StartError
from ..pipeline.counters import Counters
from .emitted import own_resource
from .logs import log_to_stderr
from .own_cost import count_process
from .settings import LogsSettings, TelemetrySettings

_LAST_EXPORT_SECONDS: Final = 1.5


class Telemetry:
    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._resource = own_resource()  # one for the whole run: sums go on
        self._settings: TelemetrySettings | None = None
        self._logs: LogsSettings | None = None
        self._stops: list[Callable[[], None]] = []
        count_process(counters)

    def log(self, settings: LogsSettings) -> None:
        """Write the log as these say."""
        if settings != self._logs:
            log_to_stderr(settings)
            self._logs = settings

    def follow(self, settings: TelemetrySettings) -> None:
        """Export as these say. Raises StartError; then it is as before."""
        before = self._settings
        if settings == before:
            return
        self.stop()
        try:
            self._start(settings)
        except StartError:
            self.stop()
            if before is not None:
                self._start(before)
            raise

    def stop(self) -> None:
        """Export a last time."""
        self._settings = None
        while self._stops:
            self._stops.pop()()

    def _start(self, settings: TelemetrySettings) -> None:
        self.log(settings.logs)
        metrics = settings.metrics
        if metrics.pulled:
            from .metrics_listener import MetricsListener

            wanted = not metrics.is_default
            self._stops.append(MetricsListener(metrics.pulled, self._counters, self._resource, wanted).stop)
        if metrics.pushed or settings.logs.processors:
            from .own_telemetry import OwnTelemetry

            exporting = OwnTelemetry(settings, self._counters, self._resource)
            self._stops.append(lambda: exporting.shutdown(_LAST_EXPORT_SECONDS))
        self._settings = settings
