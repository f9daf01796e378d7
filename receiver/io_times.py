"""Which I/O each byte of a connection's streams belonged to, hence when it moved.

Parsers find messages by position alone. A :class:`IoTimes` keeps, for one direction, the times of the I/Os that an
exchange still to come may touch: not their bytes, and nothing older than the parser says it needs.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

#: I/Os of one direction whose times are kept until their exchange is complete
IOS_KEPT = 4096


class IoTime(NamedTuple):
    """The stream positions [begin, end) of one I/O, and its times in ns of the kernel's clock.

    arrivals: (time, begin, end) of received bytes that reached the socket's buffer. process: the bytes of the
    ``process_info`` of who made the call; empty where nobody asks for it.
    """

    begin: int
    end: int
    started: int
    ended: int
    arrivals: tuple[tuple[int, int, int], ...]
    process: bytes

    def arrival_of(self, position: int) -> int:
        """When the byte at this position was in the socket's buffer; 0 if that is not known."""
        for time, begin, end in self.arrivals:
            if begin <= position < end:
                return time
        return 0


class IoTimes:
    """The I/Os of one direction, by position."""

    __slots__ = ("_ios",)

    def __init__(self) -> None:
        self._ios: deque[IoTime] = deque(maxlen=IOS_KEPT)

    def __len__(self) -> int:
        return len(self._ios)

    def append(self, io: IoTime) -> None:
        self._ios.append(io)

    def forget_before(self, position: int) -> None:
        """Nothing before this position will be asked for again."""
        ios = self._ios
        while ios and ios[0].end <= position:
            ios.popleft()

    def moved_by(self, time: int) -> int:
        """Where the bytes kept end that had moved by then; -1 if none had."""
        position = -1
        for io in self._ios:
            if io.ended > time:
                break
            position = io.end
        return position

    def covering(self, begin: int, end: int) -> tuple[IoTime, IoTime] | None:
        """The I/Os of the first and the last byte of [begin, end); None if they are not kept (any more). Forgets
        what lies before: exchanges come in the order of their positions."""
        self.forget_before(begin)
        ios = self._ios
        if not ios or ios[0].begin > begin:
            return None
        for io in ios:
            if io.end >= end:
                return ios[0], io
        return None
