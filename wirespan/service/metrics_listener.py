"""Where Prometheus may scrape own metrics: a port that is listened on from before components start until they have stopped.

Most agents are never scraped, so what serves HTTP, and knows all metrics, is imported when somebody connects first. Unless it is
configured, another process may have the port: then that is said, and the agent runs without.
"""

from __future__ import annotations

import logging
import os
import select
import socket
from collections.abc import Sequence
from contextlib import suppress
from threading import Thread

from ..pipeline.component import StartError
from ..pipeline.counters import Counters
from ..pipeline.scheduling import schedule_as_batch
from .settings import PrometheusSettings

logger = logging.getLogger(__name__)


class MetricsListener:
    """Listens from construction to ``stop``. resource: of the agent. wanted: a port that cannot be had is a StartError, else a
    warning."""

    def __init__(
        self, settings: Sequence[PrometheusSettings], counters: Counters, resource: dict[str, str], wanted: bool
    ) -> None:
        self._counters, self._resource = counters, resource
        self._listening: list[tuple[PrometheusSettings, socket.socket]] = []
        try:
            for one in settings:
                self._listen(one, wanted)
        except StartError:
            self._close()
            raise
        self._stopped = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread = Thread(target=self._run, name="own metrics for Prometheus", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        os.eventfd_write(self._stopped, 1)
        self._thread.join()
        os.close(self._stopped)
        self._close()

    def _listen(self, settings: PrometheusSettings, wanted: bool) -> None:
        try:
            listening = _listening_on(settings.host, settings.port)
        except OSError as error:
            said = f"cannot listen on {settings.host}:{settings.port}: {error.strerror or error}"
            if wanted:
                raise StartError(f"own metrics {said}") from error
            logger.warning("Own metrics are not served to Prometheus", extra={"error": said})
        else:
            self._listening.append((settings, listening))

    def _run(self) -> None:
        schedule_as_batch()
        somebody = select.poll()  # select() knows no descriptor beyond 1,023, which a new configuration may get
        somebody.register(self._stopped, select.POLLIN)
        for _, listening in self._listening:
            somebody.register(listening, select.POLLIN)
        if self._stopped in dict(somebody.poll()):
            return
        from .metrics_server import MetricsServer

        server = MetricsServer(self._listening, self._counters, self._resource)
        os.eventfd_read(self._stopped)
        server.stop()

    def _close(self) -> None:
        for _, listening in self._listening:
            with suppress(OSError):
                listening.close()


def _listening_on(host: str, port: int) -> socket.socket:
    """As Go does, a name is one address, of IPv4 if it has one."""
    family = socket.AF_INET if host == "localhost" else socket.AF_UNSPEC
    found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
    return socket.create_server(address, family=family)
