"""Transports whose certificates change: a new connection takes the place of the old one, which ends once nothing uses it.

So no request is cut off: one that is under way stays where it began.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

from ..pipeline.certificates import Certificates
from ..pipeline.component import Context, Signal
from ..pipeline.tls import ClientTls, Material
from .otlp_response import PartialSuccess
from .sending import Transport


def connected(tls: ClientTls | None, context: Context, connect: Callable[[Material], Transport]) -> Transport:
    """What sends, with the certificates of ``tls``; None is no TLS. Raises StartError if they cannot be used."""
    if tls is None:
        return connect(Material())
    return RenewingTransport(Certificates(tls, context), connect)


@dataclass(slots=True)
class _Connection:
    """senders: requests under way. retired: another one took its place."""

    transport: Transport
    senders: int = 0
    retired: bool = False


class RenewingTransport:
    """Looks for new certificates before a request. connect: must not fail with what Certificates hand out."""

    def __init__(self, certificates: Certificates, connect: Callable[[Material], Transport]) -> None:
        self._certificates = certificates
        self._connect = connect
        self._lock = Lock()
        self._current = _Connection(connect(certificates.material))

    def send(self, signal: Signal, payload: bytes, timeout: float) -> PartialSuccess:
        connection = self._enter()
        try:
            return connection.transport.send(signal, payload, timeout)
        finally:
            self._leave(connection)

    def close(self) -> None:
        with self._lock:
            self._current.transport.close()

    def _enter(self) -> _Connection:
        material = self._certificates.renewed()
        with self._lock:
            if material is not None:
                before, self._current = self._current, _Connection(self._connect(material))
                before.retired = True
                self._close_if_over(before)
            self._current.senders += 1
            return self._current

    def _leave(self, connection: _Connection) -> None:
        with self._lock:
            connection.senders -= 1
            self._close_if_over(connection)

    def _close_if_over(self, connection: _Connection) -> None:
        if connection.retired and not connection.senders:
            connection.transport.close()
