"""A file with a secret that may change while it is used, as what rotates credentials writes it."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Final, Generic, TypeVar

from .component import Context, StartError

logger = logging.getLogger(__name__)

Content = TypeVar("Content")

#: between two looks at whether it has changed
_LOOK_SECONDS: Final = 1.0
#: bytes of a file with secrets
_LONGEST: Final = 1_048_576


class SecretFile(Generic[Content]):
    """parse: makes of the text what is used, and raises ValueError, in words without the secret, for what cannot be. The first
    content is read by the constructor, which raises StartError; what cannot be used later changes nothing, is logged once and
    counted. Safe from any thread."""

    def __init__(self, path: str, parse: Callable[[str], Content], context: Context) -> None:
        self._path = Path(path)
        self._parse = parse
        self._context = context
        self._lock = Lock()
        self._next_look = 0.0
        self._seen: tuple[int, int, int] | None = None
        self._complaint = ""
        try:
            self._seen = self._identity()
            self._content = self._read()
        except (OSError, ValueError) as error:
            raise StartError(self._told(error)) from error

    def content(self) -> Content:
        if time.monotonic() >= self._next_look and self._lock.acquire(blocking=False):
            try:
                self._next_look = time.monotonic() + _LOOK_SECONDS
                self._look()
            finally:
                self._lock.release()
        return self._content

    def _look(self) -> None:
        try:
            identity = self._identity()
            if identity == self._seen:
                return
            self._content = self._read()
        except (OSError, ValueError) as error:
            self._count("failed")
            self._complain(self._told(error))
            return
        self._seen, self._complaint = identity, ""
        self._count("succeeded")
        logger.info("Credentials were reloaded.", extra={"component": self._context.id, "file": str(self._path)})

    def _identity(self) -> tuple[int, int, int]:
        """What is another one when the content is another."""
        found = os.stat(self._path)
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _read(self) -> Content:
        with self._path.open("rb") as file:
            data = file.read(_LONGEST + 1)
        if len(data) > _LONGEST:
            raise ValueError(f"it is larger than {_LONGEST} bytes")
        try:
            text = data.decode()
        except UnicodeDecodeError:
            raise ValueError("it is not UTF-8") from None
        return self._parse(text)

    def _told(self, error: OSError | ValueError) -> str:
        return f"cannot read {self._path}: {(isinstance(error, OSError) and error.strerror) or error}"

    def _count(self, outcome: str) -> None:
        self._context.counters.add("wirespan.credentials.reloads", 1, component=self._context.id, outcome=outcome)

    def _complain(self, error: str) -> None:
        if error != self._complaint:
            self._complaint = error
            message = "Credentials cannot be reloaded. Going on with those before."
            logger.warning(message, extra={"component": self._context.id, "error": error})
