"""One direction of a connection: bytes by absolute position, with gaps, handed to a reader of messages.

A reader consumes bytes up to the last boundary that it can decide and may consume *beyond* what has arrived, which is
how a body costs nothing: its bytes are neither kept nor looked at, and a gap in it is no loss. What it left
unconsumed (a head cut in two) is kept and comes again with the bytes that follow, up to ``TAIL_LIMIT``.

A reader may be *starved*: what comes next can only be read once the other direction has been read further. Then it is
fed nothing more until its owner lets it :meth:`~Stream.resume`, or gives it up.

A gap over bytes that the reader had to see makes the stream *lost*: from then on bytes are only counted, until its
owner restarts it at a position where a message certainly begins.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

#: bytes of an undecided message head that are kept
TAIL_LIMIT = 65_536
#: consumed by a reader that will never look at the stream again, or not until its end
FOREVER = 1 << 62


class Stream(ABC):
    """end: position after the last byte fed, -1 before the first. lost, starved: see above."""

    __slots__ = ("_missing", "_next", "_tail", "end", "lost", "skipped_bytes", "starved")

    def __init__(self) -> None:
        self.end = -1
        self.lost = False
        self.starved = False
        self.skipped_bytes = 0
        self._missing = 0  # bytes not captured behind those that a starved reader has left
        self._next = -1
        self._tail = b""

    @abstractmethod
    def read(self, buffer: bytes, base: int) -> int:
        """Read messages from ``buffer``, whose first byte is at position ``base``; return how many bytes are
        consumed, more than ``len(buffer)`` if what follows does not matter. An empty buffer says that position
        ``base``, consumed to before, has been reached. Sets ``lost`` where no message can begin, and ``starved``."""

    @abstractmethod
    def at_boundary(self) -> bool:
        """Whether everything fed belongs to complete messages."""

    @abstractmethod
    def message_start(self) -> int:
        """Where the message under way begins; only asked while there is one."""

    @property
    def kept_bytes(self) -> int:
        """Bytes of an undecided message head, and of what a starved reader has left."""
        return len(self._tail)

    def needed_from(self) -> int:
        """Where the first message begins whose end has not come yet; ``end`` if none has begun, or
        the stream is lost."""
        return self.end if self.lost or self.at_boundary() else self.message_start()

    def restart(self, position: int) -> None:
        """A message begins at ``position``; -1: where the next bytes begin. Readers reset their state as well."""
        self.end = self._next = position
        self._tail = b""
        self.lost = self.starved = False

    def feed(self, position: int, data: bytes, size: int) -> None:
        """``size`` bytes at ``position``, the first ``len(data)`` of them captured. Bytes fed before are ignored."""
        if position != self.end:
            if self.end < 0:
                self.end = self._next = position
            elif position > self.end:
                self._gap(position)
            else:
                seen = self.end - position
                data, size = data[seen:], size - seen
                if size <= 0:
                    return
        if self.lost:
            self.end += size
            self._drop()
            return
        missing = size - len(data)
        self._bytes(data)
        self._miss(missing)

    def resume(self) -> None:
        """The other direction has been read further."""
        self.starved = False
        missing, self._missing = self._missing, 0
        self._bytes(b"")
        self._miss(missing)

    def lose(self) -> None:
        """Look at nothing more until the next restart."""
        self.lost = True
        self.starved = False
        self.end += self._missing
        self._missing = 0
        self._drop()

    def _bytes(self, data: bytes) -> None:
        begin = self.end
        self.end = end = begin + len(data)
        base = self._next
        if base > end:
            return
        buffer = self._tail + data if base < begin else data[base - begin :]
        consumed = self.read(buffer, base)
        self._next = base + consumed
        self._tail = buffer[consumed:]
        if self.lost or len(self._tail) > TAIL_LIMIT:
            self.lose()

    def _miss(self, missing: int) -> None:
        """So many bytes were not captured."""
        if self.starved:
            self._missing = missing
        elif missing:
            self._gap(self.end + missing)

    def _gap(self, until: int) -> None:
        if not self.lost and self.end < self._next <= until:
            self._reach()
        self.end = until
        if self._next < until:
            self.lose()

    def _reach(self) -> None:
        """The gap reaches the end of a body, which may complete a message."""
        self.end = self._next
        self._next += self.read(b"", self._next)

    def _drop(self) -> None:
        self.skipped_bytes += max(self.end - self._next, 0)
        self._next = self.end
        self._tail = b""
