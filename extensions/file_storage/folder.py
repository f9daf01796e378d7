"""The directory of one owner: private to its user, and held by one process at a time.

Everything in it is named relative to its descriptor, so that nobody who may write to a directory above can put another one
in its place.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
import time
from contextlib import suppress
from typing import Final

from ...pipeline.component import StartError

_LOCK: Final = "lock"
_PAUSE: Final = 0.02
#: as of every file in it
_FILE_PERMISSIONS: Final = 0o600
_PERMISSIONS: Final = 0o700


def folder_name(kind: str, component: str) -> str:
    """The Collector's: what is no letter, digit, dot, hyphen or underscore is ~ and its number."""
    return re.sub(r"[^A-Za-z0-9._-]", lambda found: f"~{ord(found[0]):04X}", f"{kind}_{component}")


class Folder:
    """Raises StartError if it cannot be had, or another process does not let go of it within ``timeout`` seconds."""

    def __init__(self, directory: str, name: str, timeout: float) -> None:
        self.path = os.path.join(directory, name)
        self._lock: int | None = None
        try:
            self.descriptor = _opened(self.path)
        except OSError as error:
            raise StartError(f"cannot use {self.path}: {error.strerror}") from error
        try:
            self._lock = self._taken(timeout)
        except BaseException:
            self.close()
            raise

    def _taken(self, timeout: float) -> int:
        try:
            descriptor = self.open(_LOCK, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise StartError(f"cannot write to {self.path}: {error.strerror}") from error
        end = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < end:
                    time.sleep(_PAUSE)
                    continue
                holder = os.read(descriptor, 20).decode(errors="replace").strip()
                os.close(descriptor)
                raise StartError(
                    f"{self.path} is in use by another process{f', {holder}' if holder.isdigit() else ''}: two agents need "
                    "a directory each"
                ) from None
            break
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        return descriptor

    def open(self, name: str, flags: int) -> int:
        """A descriptor of a file in it. Raises OSError."""
        return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, _FILE_PERMISSIONS, dir_fd=self.descriptor)

    def names(self) -> list[str]:
        """Raises OSError."""
        return sorted(os.listdir(self.descriptor))

    def remove(self, name: str) -> None:
        """Raises OSError."""
        os.unlink(name, dir_fd=self.descriptor)

    def rename(self, name: str, other: str) -> None:
        """Raises OSError."""
        os.rename(name, other, src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)

    def sync(self) -> None:
        """Names that were given or taken are on the disk. Raises OSError."""
        os.fsync(self.descriptor)

    def close(self) -> None:
        """Let others have it."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        os.close(self.descriptor)


def _opened(path: str) -> int:
    """A directory that is its user's alone. Raises OSError."""
    with suppress(FileExistsError):
        os.mkdir(path, _PERMISSIONS)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    found = os.fstat(descriptor)
    try:
        if found.st_uid != os.geteuid():
            raise PermissionError(0, f"it belongs to user {found.st_uid}")
        if stat.S_IMODE(found.st_mode) != _PERMISSIONS:
            os.fchmod(descriptor, _PERMISSIONS)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def make_directory(path: str, permissions: int) -> None:
    """And those above it, as far as they are missing. Raises StartError."""
    try:
        os.makedirs(path, permissions, exist_ok=True)
    except OSError as error:
        raise StartError(f"cannot create {path}: {error.strerror}") from error
