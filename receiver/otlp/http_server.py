"""What the HTTP server of the core serves here: requests of OTLP, read within bounds and handed to the workers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from http import HTTPStatus

from ...pipeline.authentication import Identity, server_authenticator
from ...pipeline.http_server import Connection, HttpServer, Refused, Reply
from .cors import cors_of
from .decompression import body_limit
from .http_request import Head, Refusal, busy, handle, read_head, refusal, too_large, unauthenticated
from .intake import Intake
from .settings import HttpServerSettings
from .workers import Workers


def http_server(settings: HttpServerSettings, intake: Intake, workers: Workers) -> HttpServer:
    return HttpServer(settings, _Requests(settings, intake, workers), settings.idle_timeout, intake.context)


class _Requests:
    """Counts what it refuses."""

    def __init__(self, settings: HttpServerSettings, intake: Intake, workers: Workers) -> None:
        self._settings = settings
        self._intake = intake
        self._workers = workers
        self._cors = cors_of(settings.cors)
        self._authenticator = server_authenticator(settings.auth, intake.context)

    async def answer(self, connection: Connection) -> Reply:
        async with asyncio.timeout(self._settings.read_timeout) as limit:
            head = await self._head(connection)
            if isinstance(head, Reply):
                return head
            await connection.invite()
            body = bytearray()
            try:
                await self._read(connection, head, body)
                limit.reschedule(None)
                return self._counted(await self._handled(head, bytes(body), connection.sender))
            finally:
                self._intake.rooms[head.signal].give_back(len(body))

    async def _read(self, connection: Connection, head: Head, body: bytearray) -> None:
        """As much of the body as there is room for, which is taken."""
        room = self._intake.rooms[head.signal]
        while chunk := await connection.body():
            if len(body) + len(chunk) > self._settings.max_request_body_size:
                limit = body_limit(self._settings.max_request_body_size)
                raise self._refused(too_large(limit, head.content_type))
            if not room.take(len(chunk)):
                raise self._refused(busy(head.content_type, "no_room"))
            body += chunk

    def refusal(self, status: HTTPStatus, message: str, reason: str) -> Reply:
        return self._counted(refusal(status, message, reason=reason))

    def busy(self) -> Reply:
        return busy()

    async def _head(self, connection: Connection) -> Head | Reply:
        """A reply to a browser that asks whether its page may send, which nothing else follows."""
        request = await connection.head()
        method, target = request.method.decode("latin-1"), request.target.decode("latin-1")
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers}
        if self._cors is not None:
            allowed = self._cors.preflight(method, headers)
            if allowed is not None:
                await connection.body()  # none, or the connection ends with the reply
                return Reply(HTTPStatus.NO_CONTENT, headers=allowed)
            connection.said = self._cors.of_reply(headers)
        await self._let_in(headers)
        head = read_head(self._settings, self._intake.signals, method, target, headers)
        if isinstance(head, Refusal):
            raise self._refused(head)
        return head

    async def _let_in(self, headers: Mapping[str, str]) -> None:
        """Only who is known; nothing more is read of the others."""
        if self._authenticator is None:
            return
        match await self._authenticator.identify(headers):
            case Identity.UNKNOWN:
                raise self._refused(unauthenticated(headers, self._authenticator.challenge))
            case Identity.BUSY:
                raise self._refused(busy(reason="no_room"))

    async def _handled(self, head: Head, body: bytes, sender: str) -> Reply:
        loop = asyncio.get_running_loop()
        workers = self._workers.of(head.signal)
        return await loop.run_in_executor(workers, handle, self._intake, self._settings, head, body, sender)

    def _refused(self, reply: Reply) -> Refused:
        return Refused(self._counted(reply))

    def _counted(self, reply: Reply) -> Reply:
        if isinstance(reply, Refusal) and reply.reason:
            self._intake.refuse(reply.reason, "http")
        return reply
