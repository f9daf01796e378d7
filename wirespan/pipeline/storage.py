"""The contract between a persistent sending queue and the extension that stores for it.

A queue appends requests, and acknowledges them once ``append`` has returned: from then on they come back in ``entries``
of the next run, until they are removed. What is removed may come back too, if the process was killed meanwhile: delivery
is at least once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from .component import Signal
from .encoded import EncodedBatch


class StorageError(Exception):
    """A storage cannot take a request, or cannot give it back. The message says what happened, and to which file."""


class StorageBusy(StorageError):
    """It may be possible later."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A stored request. items: how many are in it. size: bytes of its payload. place: known to its storage alone."""

    signal: Signal
    items: int
    size: int
    place: Any


class StoredQueue(Protocol):
    """What one owner has stored. Safe from any thread."""

    def entries(self) -> Sequence[Entry]:
        """What was there when it was opened, the oldest first. Asked once."""

    def append(self, batches: Sequence[EncodedBatch]) -> list[Entry]:
        """Store all or none of them, as durably as the storage is configured to; may raise StorageError."""

    def read(self, entry: Entry) -> bytes:
        """The payload; raises StorageError if it is lost, StorageBusy if it only cannot be read now."""

    def remove(self, entry: Entry) -> None:
        """It is not needed any more."""

    def close(self) -> None:
        """What was not removed stays for the next run."""


@runtime_checkable
class Storage(Protocol):
    """An extension that stores."""

    def open_queue(self, exporter: str) -> StoredQueue:
        """That of an exporter, by its id in the configuration; raises StartError."""
