"""OTLP over gRPC, in an event loop: a stream that never sends its request holds no thread.

Requests arrive as bytes, decompressed by gRPC, which stops at the limit: a zip bomb takes no more than that. gRPC reads the
request of a unary method before it calls anybody, however many there are. So methods are streaming here, which a client cannot
tell: a request is read once its turn has come, and what waits for that stays with its sender by HTTP/2's flow control.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, NoReturn
from urllib.parse import unquote

from ...pipeline.authentication import Identity, server_authenticator
from ...pipeline.certificates import Certificates
from ...pipeline.component import Signal, StartError
from ...pipeline.listening import address_of, sender_of
from ...pipeline.quiet import silence_grpc
from ...pipeline.tls import Material
from .answers import Code, status
from .intake import Intake, Verdict
from .settings import GrpcServerSettings
from .workers import Workers

silence_grpc()

import grpc  # noqa: E402
import grpc.aio  # noqa: E402

METHODS: Final[Mapping[str, Signal]] = {
    "/opentelemetry.proto.collector.trace.v1.TraceService/Export": "traces",
    "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export": "metrics",
    "/opentelemetry.proto.collector.logs.v1.LogsService/Export": "logs",
}
_BUSY: Final = (Code.UNAVAILABLE, grpc.StatusCode.UNAVAILABLE, "no room; try again later")
_REFUSALS: Final[Mapping[Verdict | Identity, tuple[Code, grpc.StatusCode, str]]] = {
    Verdict.BUSY: _BUSY,
    Identity.BUSY: _BUSY,
    Verdict.MALFORMED: (Code.INVALID_ARGUMENT, grpc.StatusCode.INVALID_ARGUMENT, "not a request of this service"),
    Identity.UNKNOWN: (
        Code.UNAUTHENTICATED,
        grpc.StatusCode.UNAUTHENTICATED,
        "credentials are missing, or wrong",
    ),
    Verdict.FAILED: (Code.INTERNAL, grpc.StatusCode.INTERNAL, "the request could not be handled"),
}


#: for a request to arrive, from its turn on; and while others wait for theirs
_READ_SECONDS: Final = 60.0
_READ_SECONDS_IN_A_CROWD: Final = 1.0


class Turns:
    """Of a signal at most so many requests are read and handed on at a time. Silent streams give way as soon as others wait."""

    def __init__(self, limit: int) -> None:
        self._turns = asyncio.Semaphore(limit)
        self._waiting = 0
        self._reading: dict[asyncio.Timeout, float] = {}

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        self._waiting += 1
        try:
            if self._turns.locked():
                self._hurry()
            await self._turns.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._turns.release()

    async def read(self, requests: AsyncIterator[bytes]) -> bytes | None:
        """The request; None for a stream with none, or several. Raises TimeoutError.

        A stream that is not read to its end holds the request until garbage is collected.
        """
        began = asyncio.get_running_loop().time()
        async with asyncio.timeout(_READ_SECONDS_IN_A_CROWD if self._waiting else _READ_SECONDS) as limit:
            self._reading[limit] = began
            try:
                request = await anext(requests, None)
                return request if request is None or await anext(requests, None) is None else None
            finally:
                del self._reading[limit]

    def _hurry(self) -> None:
        now = asyncio.get_running_loop().time()
        for limit, began in self._reading.items():
            end = limit.when()
            if end is not None and end > began + _READ_SECONDS_IN_A_CROWD:
                limit.reschedule(max(now, began + _READ_SECONDS_IN_A_CROWD))


class GrpcServer:
    """Made, started and stopped in the event loop."""

    def __init__(self, settings: GrpcServerSettings, intake: Intake, workers: Workers) -> None:
        self._settings = settings
        self._intake = intake
        self._workers = workers
        self._authenticator = server_authenticator(settings.auth, intake.context)
        turns = max(1, intake.part_of_each() // (settings.max_recv_msg_size_mib * 1024 * 1024))
        self._turns = {signal: Turns(turns) for signal in intake.signals}
        options: Sequence[tuple[str, Any]] = (
            ("grpc.max_receive_message_length", settings.max_recv_msg_size_mib * 1024 * 1024),
            ("grpc.max_concurrent_streams", settings.max_concurrent_streams),
            ("grpc.http2.bdp_probe", 0),  # or what is not read yet grows to megabytes a stream
            ("grpc.so_reuseport", 0),  # a second server on the same port would take a share of the connections
        )
        self._server = grpc.aio.server(options=options)
        self._server.add_generic_rpc_handlers((_Handler(self._export, intake.signals),))

    async def start(self) -> None:
        host, port = address_of(self._settings.endpoint)
        target = f"[{host}]:{port}" if ":" in host else f"{host or '[::]'}:{port}"
        tls = self._settings.tls
        certificates = None if tls is None else Certificates(tls, self._intake.context)
        try:
            if certificates is None:
                self._server.add_insecure_port(target)
            else:
                self._server.add_secure_port(target, _credentials(certificates))
        except RuntimeError as error:
            raise StartError(f"cannot listen on {self._settings.endpoint}: is the port in use?") from error
        await self._server.start()

    async def stop(self, grace: float) -> None:
        """Take no more, and wait at most so long for what is under way."""
        await self._server.stop(grace)

    async def _export(
        self, signal: Signal, requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[bytes, bytes]
    ) -> bytes:
        await self._let_in(context)
        turns = self._turns[signal]
        async with turns.turn():
            try:
                request = await turns.read(requests)
                verdict = (
                    Verdict.MALFORMED
                    if request is None
                    else await self._handed_on(signal, request, _address(context.peer()))
                )
            except TimeoutError:
                self._intake.refuse("timeout", "grpc")
                verdict = Verdict.BUSY
        if verdict is not Verdict.OK:
            await _abort(context, verdict)
        return b""

    async def _let_in(self, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        """Only who is known; nothing is read of the others."""
        if self._authenticator is None:
            return
        sent = {name: value for name, value in context.invocation_metadata() or () if isinstance(value, str)}
        identity = await self._authenticator.identify(sent)
        if identity is not Identity.KNOWN:
            self._intake.refuse("unauthenticated" if identity is Identity.UNKNOWN else "no_room", "grpc")
            await _abort(context, identity)

    async def _handed_on(self, signal: Signal, request: bytes, sender: str) -> Verdict:
        loop = asyncio.get_running_loop()
        workers = self._workers.of(signal)
        return await loop.run_in_executor(workers, self._intake.take, signal, request, "grpc", sender)


class _Handler(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # at run time it takes none
    def __init__(self, export: Any, signals: Sequence[Signal]) -> None:
        self._handlers = {
            method: grpc.stream_unary_rpc_method_handler(partial(export, signal))
            for method, signal in METHODS.items()
            if signal in signals
        }

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        return self._handlers.get(details.method)


async def _abort(context: grpc.aio.ServicerContext[bytes, bytes], why: Verdict | Identity) -> NoReturn:
    code, name, message = _REFUSALS[why]
    await context.abort(name, message, (("grpc-status-details-bin", status(code, message)),))


def _address(peer: str) -> str:
    """Of ``ipv4:10.0.0.1:41234`` or ``ipv6:%5Bfd00::1%5D:41234``, as gRPC names who asks."""
    kind, _, rest = unquote(peer).partition(":")
    return sender_of(rest.rpartition(":")[0].strip("[]")) if kind in ("ipv4", "ipv6") else ""


def _credentials(certificates: Certificates) -> grpc.ServerCredentials:
    """gRPC asks at every handshake whether there are others by now."""

    def others() -> grpc.ServerCertificateConfiguration | None:
        material = certificates.renewed()
        return None if material is None else _configuration(material)

    first = certificates.material
    return grpc.dynamic_ssl_server_credentials(
        _configuration(first),
        others,  # type: ignore[arg-type]  # None is no change
        require_client_authentication=first.authorities is not None,
    )


def _configuration(material: Material) -> grpc.ServerCertificateConfiguration:
    assert material.key is not None
    assert material.certificate is not None
    return grpc.ssl_server_certificate_configuration([(material.key, material.certificate)], material.authorities)
