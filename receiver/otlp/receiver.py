"""The component: a thread with the event loop of all connections, and a few that hand requests on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from threading import Thread
from typing import Any, Final

from ...pipeline.component import ALL_SIGNALS, Context, Factory, Outputs
from ...pipeline.scheduling import schedule_as_batch
from .intake import Intake
from .settings import OtlpReceiverSettings, conflict

#: requests that are taken apart and handed on at a time
_WORKERS: Final = 4
#: of shutdown's time, what requests that are being received may take
_GRACE_SECONDS: Final = 2.0


class OtlpReceiver:
    def __init__(self, settings: OtlpReceiverSettings, context: Context, outputs: Outputs) -> None:
        self._protocols = settings.protocols
        self._id = context.id
        self._intake = Intake(context, outputs)
        self._workers = ThreadPoolExecutor(_WORKERS, f"{context.id} worker", schedule_as_batch)
        self._servers: list[Any] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: Thread | None = None

    def facts(self) -> dict[str, str]:
        servers = {"grpc": self._protocols.grpc, "http": self._protocols.http}
        said = [f"{name} {server.endpoint}" for name, server in servers.items() if server is not None]
        return {"listens_on": ", ".join(said)}

    def start(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._run, args=(self._loop,), name=self._id, daemon=True)
        self._thread.start()
        try:
            self._wait_for(self._start(), None)
        except BaseException:
            self.shutdown(time.monotonic())
            raise

    def shutdown(self, deadline: float) -> None:
        if self._loop is None or self._thread is None:
            return
        grace = max(0.0, min(_GRACE_SECONDS, deadline - time.monotonic()))
        self._wait_for(self._stop(grace), grace + 1.0)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop = self._thread = None
        self._workers.shutdown(wait=False, cancel_futures=True)

    def settle(self, seconds: float) -> None:
        self._intake.wait_until_idle(seconds)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        schedule_as_batch()
        asyncio.set_event_loop(loop)
        loop.run_forever()
        loop.close()

    async def _start(self) -> None:
        if self._protocols.grpc is not None:
            from .grpc_server import GrpcServer  # only now: grpc takes 10 MB

            self._servers.append(GrpcServer(self._protocols.grpc, self._intake, self._workers))
        if self._protocols.http is not None:
            from .http_server import HttpServer

            self._servers.append(HttpServer(self._protocols.http, self._intake, self._workers))
        for server in self._servers:
            await server.start()

    async def _stop(self, grace: float) -> None:
        await asyncio.gather(*(server.stop(grace) for server in self._servers))

    def _wait_for(self, work: Coroutine[Any, Any, None], timeout: float | None) -> None:
        """Have the event loop do it."""
        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout)


FACTORY = Factory(
    "receiver",
    "otlp",
    OtlpReceiverSettings,
    OtlpReceiver,
    conflict=conflict,
    signals=ALL_SIGNALS,
    encoded_spans=True,
)
