"""`health_check`: says by HTTP whether the agent is ready, as the Collector's extension of that name does.

200 while everything runs; 503 while it starts and stops. So it answers probes of Kubernetes.
"""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Final

from pydantic import Field

from ..pipeline.component import ComponentConfig, Context, Factory
from ..pipeline.event_loop import EventLoop
from ..pipeline.http_server import Connection, HttpServer, Reply
from ..pipeline.listening import ServerSettings

#: of a request, and between two on a connection
_TIMEOUT_SECONDS: Final = 10.0
_STOP_SECONDS: Final = 1.0
_JSON: Final = "application/json"
#: as the Collector writes no time
_NEVER: Final = "0001-01-01T00:00:00Z"


class ResponseBody(ComponentConfig):
    """What is said instead of the status in JSON."""

    healthy: str = ""
    unhealthy: str = ""


class HealthCheckSettings(ServerSettings):
    """path: at which the question is answered."""

    endpoint: str = "localhost:13133"
    path: str = Field(default="/", pattern="^/")
    response_body: ResponseBody | None = None


class HealthCheck:
    def __init__(self, settings: HealthCheckSettings, context: Context) -> None:
        self._id = context.id
        self._settings = settings
        self._health = _Health(settings)
        self._server = HttpServer(settings, self._health, _TIMEOUT_SECONDS)
        self._loop: EventLoop | None = None

    def facts(self) -> dict[str, str]:
        return {"health": self._settings.endpoint}

    def start(self) -> None:
        self._loop = EventLoop(self._id)
        try:
            self._loop.wait_for(self._server.start())
        except BaseException:
            self.shutdown(time.monotonic())
            raise

    def ready(self) -> None:
        self._health.since = time.time()

    def not_ready(self) -> None:
        self._health.since = None

    def shutdown(self, deadline: float) -> None:
        if self._loop is None:
            return
        grace = max(0.0, min(_STOP_SECONDS, deadline - time.monotonic()))
        self._loop.wait_for(self._server.stop(grace), grace + 1.0)
        self._loop.stop()
        self._loop = None


class _Health:
    """The application. since: Unix time since which all is ready, None while it is not."""

    def __init__(self, settings: HealthCheckSettings) -> None:
        self._path = settings.path.encode()
        self._bodies = settings.response_body
        self.since: float | None = None

    async def answer(self, connection: Connection) -> Reply:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            request = await connection.head()
            await connection.body()  # what has more than none is answered, and ends the connection
        target = request.target.partition(b"?")[0]
        # As in Go a path that ends in / is that of all below it.
        if target != self._path and not (self._path.endswith(b"/") and target.startswith(self._path)):
            return Reply(HTTPStatus.NOT_FOUND, body=b"404 page not found\n")
        return self._status()

    def refusal(self, status: HTTPStatus, message: str, reason: str) -> Reply:
        return Reply(status, body=f"{message}\n".encode())

    def busy(self) -> Reply:
        return Reply(HTTPStatus.SERVICE_UNAVAILABLE)

    def _status(self) -> Reply:
        since = self.since
        status = HTTPStatus.SERVICE_UNAVAILABLE if since is None else HTTPStatus.OK
        if self._bodies is not None:
            said = self._bodies.unhealthy if since is None else self._bodies.healthy
            return Reply(status, body=said.encode())
        if since is None:
            state = {"status": "Server not available", "upSince": _NEVER, "uptime": ""}
        else:
            up = datetime.fromtimestamp(since, UTC).isoformat().replace("+00:00", "Z")
            state = {"status": "Server available", "upSince": up, "uptime": _duration(time.time() - since)}
        return Reply(status, _JSON, json.dumps(state, separators=(",", ":")).encode())


def _duration(seconds: float) -> str:
    """As Go writes it."""
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + f"{seconds:.3f}s"


FACTORY = Factory("extension", "health_check", HealthCheckSettings, HealthCheck)
