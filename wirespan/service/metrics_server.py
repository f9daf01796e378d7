"""Own metrics for Prometheus to scrape: ``/metrics`` by HTTP, as a Collector has it on localhost:8888."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from socket import socket
from typing import Final

from ..pipeline.component import Context
from ..pipeline.counters import Counters
from ..pipeline.event_loop import EventLoop
from ..pipeline.http_server import Connection, HttpServer, Reply
from ..pipeline.listening import ServerSettings
from .prometheus_text import CONTENT_TYPE, PrometheusText
from .settings import PrometheusSettings

#: of a request, and between two on a connection: Prometheus asks once a minute by default
_TIMEOUT_SECONDS: Final = 10.0
_IDLE_SECONDS: Final = 120.0
_STOP_SECONDS: Final = 0.5


class MetricsServer:
    """Serves from construction to ``stop``. listening: sockets, each with how names are spelled there. resource: of the agent."""

    def __init__(
        self,
        listening: Sequence[tuple[PrometheusSettings, socket]],
        counters: Counters,
        resource: Mapping[str, str],
    ) -> None:
        self._loop = EventLoop("own metrics for Prometheus")
        self._servers: list[HttpServer] = []
        context = Context("telemetry", counters)
        for settings, own_socket in listening:
            where = ServerSettings(endpoint=f":{settings.port}")
            scrapes = _Scrapes(PrometheusText(counters, settings, resource))
            server = HttpServer(where, scrapes, _IDLE_SECONDS, context)
            self._loop.wait_for(server.start(own_socket))
            self._servers.append(server)

    def stop(self) -> None:
        for server in self._servers:
            self._loop.wait_for(server.stop(_STOP_SECONDS), _STOP_SECONDS + 1.0)
        self._loop.stop()


class _Scrapes:
    """The application."""

    def __init__(self, metrics: PrometheusText) -> None:
        self._metrics = metrics

    async def answer(self, connection: Connection) -> Reply:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            request = await connection.head()
            await connection.body()  # what has more than none is answered, and ends the connection
        if request.target.partition(b"?")[0] != b"/metrics":
            return Reply(HTTPStatus.NOT_FOUND, body=b"404 page not found\n")
        return Reply(HTTPStatus.OK, CONTENT_TYPE, self._metrics.text().encode())

    def refusal(self, status: HTTPStatus, message: str, reason: str) -> Reply:
        return Reply(status, body=f"{message}\n".encode())

    def busy(self) -> Reply:
        return Reply(HTTPStatus.SERVICE_UNAVAILABLE)
