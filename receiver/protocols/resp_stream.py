"""One direction of a connection that speaks RESP: messages of elements, of which some are still to come."""

from __future__ import annotations

from abc import abstractmethod

from .stream import Stream


class RespStream(Stream):
    """Reads element by element; what a message is made of is told by its direction."""

    __slots__ = ("_left", "_start")

    def __init__(self) -> None:
        super().__init__()
        self._start = 0
        self._left = -1  # elements still to come; -1 between messages

    def restart(self, position: int) -> None:
        super().restart(position)
        self._left = -1

    def at_boundary(self) -> bool:
        return self._left < 0 and not self._tail

    def message_start(self) -> int:
        return self._start if self._left >= 0 else self._next

    def read(self, buffer: bytes, base: int) -> int:
        at, size = 0, len(buffer)
        while at <= size:
            if not self._left:
                self._complete(base + at)
            if at == size or self.lost:
                break
            after = self._element(buffer, at, buffer.find(b"\r\n", at), base)
            if after < 0:
                break
            at = after
        return at

    @abstractmethod
    def _element(self, buffer: bytes, at: int, line_end: int, base: int) -> int:
        """Read the element at ``at``, whose first line ends at ``line_end``, -1 if it does not end in ``buffer``. Returns
        where the next one begins; -1 if this one is not complete, or not to be read."""

    @abstractmethod
    def _complete(self, end: int) -> None:
        """The message ends before position ``end``."""
