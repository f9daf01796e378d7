"""Own metrics for Prometheus to scrape: ``/metrics`` by HTTP, as a Collector has it on localhost:8888.

The port is served from before components start until they have stopped. Unless it is configured, another process may have it:
then that is said, and the agent runs without.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Final

from ..pipeline.component import Context, StartError
from ..pipeline.event_loop import EventLoop
from ..pipeline.http_server import Connection, HttpServer, Reply
from ..pipeline.listening import ServerSettings
from .prometheus_text import CONTENT_TYPE
from .settings import PrometheusSettings

logger = logging.getLogger(__name__)

#: of a request, and between two on a connection: Prometheus asks once a minute by default
_TIMEOUT_SECONDS: Final = 10.0
_IDLE_SECONDS: Final = 120.0
_STOP_SECONDS: Final = 0.5


class MetricsServer:
    """Serves from construction to ``stop``. readers: what each says. wanted: a port that cannot be had is a StartError, else
    a warning."""

    def __init__(
        self, context: Context, readers: Sequence[tuple[PrometheusSettings, Callable[[], str]]], wanted: bool
    ) -> None:
        self._context = context
        self._loop = EventLoop("own metrics for Prometheus")
        self._servers: list[HttpServer] = []
        try:
            for settings, text in readers:
                self._serve(settings, text, wanted)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        for server in self._servers:
            self._loop.wait_for(server.stop(_STOP_SECONDS), _STOP_SECONDS + 1.0)
        self._loop.stop()

    def _serve(self, settings: PrometheusSettings, text: Callable[[], str], wanted: bool) -> None:
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        listening = ServerSettings(endpoint=f"{host}:{settings.port}")
        server = HttpServer(listening, _Scrapes(text), _IDLE_SECONDS, self._context)
        try:
            self._loop.wait_for(server.start())
            self._servers.append(server)
        except StartError as error:
            if wanted:
                raise StartError(f"own metrics {error}") from error
            logger.warning("Own metrics are not served to Prometheus", extra={"error": str(error)})


class _Scrapes:
    """The application."""

    def __init__(self, text: Callable[[], str]) -> None:
        self._text = text

    async def answer(self, connection: Connection) -> Reply:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            request = await connection.head()
            await connection.body()  # what has more than none is answered, and ends the connection
        if request.target.partition(b"?")[0] != b"/metrics":
            return Reply(HTTPStatus.NOT_FOUND, body=b"404 page not found\n")
        return Reply(HTTPStatus.OK, CONTENT_TYPE, self._text().encode())

    def refusal(self, status: HTTPStatus, message: str, reason: str) -> Reply:
        return Reply(status, body=f"{message}\n".encode())

    def busy(self) -> Reply:
        return Reply(HTTPStatus.SERVICE_UNAVAILABLE)
