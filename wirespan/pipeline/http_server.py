"""HTTP/1.1 in an event loop: h11 is the protocol, asyncio the connections, an application what is served.

Everything that a client can make grow is bounded: the head of a request, the time between two, the time for it to read replies,
and the number of connections here; the body and the time for a request by the application.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from socket import AF_INET, AF_INET6, socket
from typing import Any, Final, Protocol

import h11

from .. import __version__
from .certificates import Certificates
from .component import Context, StartError
from .listening import ServerSettings, address_of, sender_of

#: connections at a time; more are told to come again
CONNECTIONS: Final = 512
#: bytes of the head of a request
HEAD: Final = 16_384
_CHUNK: Final = 65_536
#: of a request that is refused by its head, what is read before the connection is closed, so that the client reads the reply
_LINGER_BYTES: Final = 1_048_576
_LINGER_SECONDS: Final = 1.0
_HANDSHAKE_SECONDS: Final = 10.0
#: for a server that accepts no more to begin with what it had accepted: asyncio drops that if it is closed before
_ACCEPTED_SECONDS: Final = 0.2
#: for a client to read replies until there is room for another
_REPLY_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Reply:
    """headers: beyond Content-Type and Content-Length, of which 204 has neither."""

    status: int
    content_type: str = "text/plain; charset=utf-8"
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


class Refused(Exception):
    """A request that is answered before it was read, after which the connection ends."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


class Application(Protocol):
    """What is served. Its methods run in the event loop."""

    async def answer(self, connection: Connection) -> Reply:
        """Read a request and reply to it; raises Refused, and TimeoutError if that takes too long to arrive."""

    def refusal(self, status: HTTPStatus, message: str, reason: str) -> Reply:
        """The reply to what is no request, or comes too late. reason: to count it by."""

    def busy(self) -> Reply:
        """The reply to a connection too many."""


class HttpServer:
    """Made, started and stopped in the event loop. idle_timeout: seconds between two requests on a connection. context: of the
    component that serves."""

    def __init__(
        self, settings: ServerSettings, application: Application, idle_timeout: float, context: Context
    ) -> None:
        self._settings = settings
        self._application = application
        self._idle_timeout = idle_timeout
        self._context = context
        self._listening: list[asyncio.Server] = []
        self._renewing: asyncio.Task[None] | None = None
        self._idle: set[asyncio.Task[None]] = set()
        self._busy: set[asyncio.Task[None]] = set()
        self._stopping = False

    async def start(self, listening: socket | None = None) -> None:
        """listening: in place of one at the settings' endpoint. Raises StartError."""
        settings = self._settings
        host, port = address_of(settings.endpoint)
        certificates = None if settings.tls is None else Certificates(settings.tls, self._context)
        # As Go does, a name is one address, of IPv4 if it has one; no name is all interfaces.
        family = AF_INET if host == "localhost" else AF_INET6 if ":" in host else 0
        where = {"host": host or None, "port": port, "family": family} if listening is None else {"sock": listening}
        try:
            self._listening = [await self._listen(certificates, **where)]
        except OSError as error:
            raise StartError(f"cannot listen on {settings.endpoint}: {error.strerror or error}") from error
        if certificates is not None and settings.tls is not None and settings.tls.seconds_between_looks:
            self._renewing = asyncio.create_task(self._renew(certificates, settings.tls.seconds_between_looks))

    async def _listen(self, certificates: Certificates | None, **where: Any) -> asyncio.Server:
        tls = self._settings.tls
        context = None if certificates is None or tls is None else tls.context(certificates.material)
        handshake = None if context is None else _HANDSHAKE_SECONDS
        return await asyncio.start_server(
            self._serve, **where, ssl=context, ssl_handshake_timeout=handshake, limit=_CHUNK, backlog=CONNECTIONS
        )

    async def _renew(self, certificates: Certificates, seconds: float) -> None:
        """Whoever connects gets new certificates once there are any."""
        stale = False
        while True:
            await asyncio.sleep(seconds)
            stale |= await asyncio.to_thread(certificates.renewed) is not None
            if stale:
                with suppress(OSError):  # no file descriptor is left; perhaps there is one the next time
                    await self._listen_again(certificates)
                    stale = False

    async def _listen_again(self, certificates: Certificates) -> None:
        """On the same sockets, so that none who waits is lost; connections that there are go on."""
        sockets = [listening.dup() for server in self._listening for listening in server.sockets]
        after = [await self._listen(certificates, sock=listening) for listening in sockets]
        before, self._listening = self._listening, after
        loop = asyncio.get_running_loop()
        for listening in (listening for server in before for listening in server.sockets):
            loop.remove_reader(listening.fileno())
        try:
            await asyncio.sleep(_ACCEPTED_SECONDS)
        finally:
            for server in before:
                server.close()

    async def stop(self, grace: float) -> None:
        """Take no more, and wait at most so long for what is under way."""
        self._stopping = True
        if self._renewing is not None:
            self._renewing.cancel()
        for server in self._listening:
            server.close()
        for task in self._idle:
            task.cancel()
        if self._busy:
            await asyncio.wait(self._busy, timeout=grace)
        for task in self._idle | self._busy:
            task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connection = Connection(reader, writer)
        crowded = len(self._idle) + len(self._busy) >= CONNECTIONS
        self._busy.add(task)
        try:
            if crowded:
                await connection.turn_away(self._application.busy())
            else:
                await self._requests(connection, task)
        except (_Gone, OSError, TimeoutError, asyncio.CancelledError):  # ssl.SSLError is an OSError
            pass
        finally:
            self._idle.discard(task)
            self._busy.discard(task)
            writer.close()
            if writer.transport.get_write_buffer_size():  # closing waits for a client that does not read
                asyncio.get_running_loop().call_later(_LINGER_SECONDS, writer.transport.abort)

    async def _requests(self, connection: Connection, task: asyncio.Task[None]) -> None:
        """All requests of a connection, one after the other."""
        while not self._stopping:
            self._busy.discard(task)
            self._idle.add(task)
            async with asyncio.timeout(self._idle_timeout):
                await connection.wait_for_bytes()
            self._idle.discard(task)
            self._busy.add(task)
            if not await self._answered(connection):
                return

    async def _answered(self, connection: Connection) -> bool:
        """Answer a request. Whether another may follow."""
        try:
            reply = await self._application.answer(connection)
        except Refused as refused:
            await connection.turn_away(refused.reply)
            return False
        except h11.RemoteProtocolError as error:
            status = HTTPStatus(error.error_status_hint)
            refusal = self._application.refusal(status, "not a request of HTTP/1.1", "malformed")
            await connection.turn_away(refusal)
            return False
        except TimeoutError:
            late = HTTPStatus.REQUEST_TIMEOUT
            await connection.turn_away(self._application.refusal(late, "the request took too long", "timeout"))
            return False
        return await connection.reply(reply, self._stopping)


class _Gone(Exception):
    """The client has left, or says nothing more."""


class Connection:
    """h11 over a stream. A client that breaks the protocol, which raises h11.RemoteProtocolError, is told so, once."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._protocol = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD)
        self._method = b""
        #: headers of the reply to the request that is being read, whatever it will be
        self.said: tuple[tuple[str, str], ...] = ()

    @property
    def sender(self) -> str:
        """The address of who is connected; empty if it is not known."""
        peer = self._writer.get_extra_info("peername")
        return sender_of(peer[0]) if isinstance(peer, tuple) else ""

    async def wait_for_bytes(self) -> None:
        """Until something of the next request is there."""
        if not self._protocol.trailing_data[0]:
            await self._receive()

    async def head(self) -> h11.Request:
        self.said = ()
        event = await self._next()
        if not isinstance(event, h11.Request):
            raise _Gone
        self._method = event.method
        return event

    async def body(self) -> bytes:
        """The next part of it; empty at its end."""
        event = await self._next()
        if isinstance(event, h11.Data):
            return bytes(event.data)
        if isinstance(event, h11.EndOfMessage):
            return b""
        raise _Gone

    async def invite(self) -> None:
        """Say that the body is welcome, if the client waits for that."""
        if self._protocol.they_are_waiting_for_100_continue:
            await self._send(h11.InformationalResponse(status_code=100, headers=[]))

    async def reply(self, reply: Reply, last: bool) -> bool:
        """Whether another request may follow."""
        content = (("Content-Type", reply.content_type), ("Content-Length", str(len(reply.body))))
        headers = [
            *(content if reply.status != HTTPStatus.NO_CONTENT else ()),
            ("Server", f"wirespan/{__version__}"),
            *self.said,
            *reply.headers,
            *((("Connection", "close"),) if last else ()),
        ]
        body = b"" if self._method == b"HEAD" else reply.body
        await self._send(
            h11.Response(status_code=reply.status, headers=headers), h11.Data(data=body), h11.EndOfMessage()
        )
        if self._protocol.our_state is not h11.DONE or self._protocol.their_state is not h11.DONE:
            return False
        self._protocol.start_next_cycle()
        return True

    async def turn_away(self, reply: Reply) -> None:
        """Reply to what was not read, and let the client read that."""
        with suppress(h11.LocalProtocolError):  # where nothing can be said any more
            await self.reply(reply, last=True)
        if self._writer.can_write_eof():
            self._writer.write_eof()
        left = _LINGER_BYTES
        with suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_SECONDS):
                while left > 0 and (data := await self._reader.read(_CHUNK)):
                    left -= len(data)

    async def _next(self) -> h11.Event:
        while True:
            event = self._protocol.next_event()
            if event is h11.NEED_DATA:
                await self._receive()
            elif isinstance(event, h11.Event) and not isinstance(event, h11.ConnectionClosed):
                return event
            else:
                raise _Gone

    async def _receive(self) -> None:
        data = await self._reader.read(_CHUNK)
        if not data and not self._protocol.trailing_data[0]:
            raise _Gone
        with suppress(h11.RemoteProtocolError):  # said by the next event
            self._protocol.receive_data(data)

    async def _send(self, *events: h11.Event) -> None:
        data = b"".join(sent for event in events if (sent := self._protocol.send(event)))
        self._writer.write(data)
        try:
            async with asyncio.timeout(_REPLY_SECONDS):
                await self._writer.drain()
        except TimeoutError as error:
            raise _Gone from error
