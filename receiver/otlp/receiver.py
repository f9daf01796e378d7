"""The component: a thread with the event loop of all connections, and a few that hand requests on."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from ...pipeline.component import ALL_SIGNALS, Context, Factory, Outputs
from ...pipeline.event_loop import EventLoop
from .intake import Intake
from .settings import OtlpReceiverSettings, conflict
from .workers import Workers

#: of shutdown's time, what requests that are being received may take
_GRACE_SECONDS: Final = 2.0


class OtlpReceiver:
    def __init__(self, settings: OtlpReceiverSettings, context: Context, outputs: Outputs) -> None:
        self._protocols = settings.protocols
        self._id = context.id
        http = settings.protocols.http
        self._intake = Intake(context, outputs, 0 if http is None else http.max_request_body_size)
        self._workers = Workers(context.id, self._intake.signals)
        self._servers: list[Any] = []
        self._loop: EventLoop | None = None

    def facts(self) -> dict[str, str]:
        servers = {"grpc": self._protocols.grpc, "http": self._protocols.http}
        said = [f"{name} {server.endpoint}" for name, server in servers.items() if server is not None]
        return {"listens_on": ", ".join(said)}

    def start(self) -> None:
        self._loop = EventLoop(self._id)
        try:
            self._loop.wait_for(self._start())
        except BaseException:
            self.shutdown(time.monotonic())
            raise

    def shutdown(self, deadline: float) -> None:
        if self._loop is None:
            return
        grace = max(0.0, min(_GRACE_SECONDS, deadline - time.monotonic()))
        self._loop.wait_for(self._stop(grace), grace + 1.0)
        self._loop.stop()
        self._loop = None
        self._workers.shutdown()

    def settle(self, seconds: float) -> None:
        self._intake.wait_until_idle(seconds)

    async def _start(self) -> None:
        if self._protocols.grpc is not None:
            from .grpc_server import GrpcServer  # only now: grpc takes 10 MB

            self._servers.append(GrpcServer(self._protocols.grpc, self._intake, self._workers))
        if self._protocols.http is not None:
            from .http_server import http_server

            self._servers.append(http_server(self._protocols.http, self._intake, self._workers))
        for server in self._servers:
            await server.start()

    async def _stop(self, grace: float) -> None:
        await asyncio.gather(*(server.stop(grace) for server in self._servers))


FACTORY = Factory(
    "receiver",
    "otlp",
    OtlpReceiverSettings,
    OtlpReceiver,
    conflict=conflict,
    signals=ALL_SIGNALS,
    encoded_spans=True,
)
