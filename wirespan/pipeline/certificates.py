"""Certificates in use, which change when their files do: what is new and good is handed out once, what is not is left.

Nobody watches the files: who uses them asks before a request, at a handshake or at intervals, and is answered at once until it
is time to look again.
"""

from __future__ import annotations

import logging
import ssl
import time
from threading import Lock
from typing import Protocol

from .component import Context, StartError
from .tls import Material

logger = logging.getLogger(__name__)


class TlsFiles(Protocol):
    """What ClientTls and ServerTls have."""

    @property
    def seconds_between_looks(self) -> float: ...

    def read(self) -> Material: ...

    def context(self, material: Material) -> ssl.SSLContext: ...


class Certificates:
    """material: what is used now. context: of the component that uses it. Raises StartError if those that are there at first
    cannot be used. Safe from any thread."""

    def __init__(self, tls: TlsFiles, context: Context) -> None:
        self._tls = tls
        self._component = context.id
        self._counters = context.counters
        self.material = tls.read()
        tls.context(self.material)
        self._next_look = self._after_a_while()
        self._looking = Lock()
        self._complaint = ""

    def renewed(self) -> Material | None:
        """What the files hold, if it is new, can be used, and was not handed out before."""
        if time.monotonic() < self._next_look or not self._looking.acquire(blocking=False):
            return None
        try:
            self._next_look = self._after_a_while()
            return self._look()
        finally:
            self._looking.release()

    def _after_a_while(self) -> float:
        seconds = self._tls.seconds_between_looks
        return time.monotonic() + seconds if seconds else float("inf")

    def _look(self) -> Material | None:
        try:
            found = self._tls.read()
            if found != self.material:
                self._tls.context(found)
        except StartError as error:
            self._counters.add("wirespan.tls.reloads", 1, component=self._component, outcome="failed")
            self._complain(str(error))
            return None
        self._complaint = ""
        if found == self.material:
            return None
        self.material = found
        self._counters.add("wirespan.tls.reloads", 1, component=self._component, outcome="succeeded")
        logger.info("Certificates were reloaded.", extra={"component": self._component})
        return found

    def _complain(self, error: str) -> None:
        """Once for each thing that is wrong."""
        if error != self._complaint:
            self._complaint = error
            message = "Certificates cannot be reloaded. Going on with those before."
            logger.warning(message, extra={"component": self._component, "error": error})
