"""The commands of one Redis connection, and which of them will be answered.

A request is an array of bulk strings or an inline command. Only the header lines are looked at, and the words that can
be part of a command's name, so a value of 512 MB costs as much as one of 3 bytes. CLIENT REPLY, which switches replies
off, takes effect here.

Where a request has to begin, all that is no array is an inline command, known or not: Redis answers it. What breaks the
protocol is answered too, by an error, after which Redis closes: it is a request that ends with its I/O, and the last.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import TypeAlias

from .ordered import PENDING_LIMIT
from .redis_commands import WORD_LIMIT, Command, Replies, command_of
from .resp import HEADER_LIMIT, INVALID, Type, number_of
from .resp_stream import RespStream

#: start, end, command, number of words
Request: TypeAlias = tuple[int, int, Command, int]

#: a plain int: a member of an enum is slower to compare, and this is done for every command
_ARRAY = int(Type.ARRAY)


class Silence(Enum):
    """Replies that CLIENT REPLY has switched off."""

    NONE = "none"
    NEXT = "next"
    ALL = "all"


class RequestStream(RespStream):
    """Finds commands and appends those that will be answered to ``pending``."""

    __slots__ = ("_arguments", "_pending", "_silence", "_wanted", "_words", "one_way")

    def __init__(self, pending: deque[Request]) -> None:
        super().__init__()
        self._pending = pending
        self.one_way = 0
        self._silence = Silence.NONE
        self._arguments = 0
        self._wanted = 0  # words that are part of the name, or may be
        self._words: list[bytes] = []

    def _element(self, buffer: bytes, at: int, line_end: int, base: int) -> int:
        if self._left > 0:
            return self._argument(buffer, at, line_end, base)
        return self._begin(buffer, at, line_end, base)

    def _begin(self, buffer: bytes, at: int, line_end: int, base: int) -> int:
        if len(self._pending) >= PENDING_LIMIT:
            self.lost = True
            return -1
        if buffer[at] != _ARRAY:
            return self._inline(buffer, at, base)
        if line_end < 0:
            return self._wait(base + at, buffer, at, base)
        count = number_of(buffer[at:line_end])
        if count == INVALID:
            return self._refuse(base + at, buffer, base)
        if count > 0:  # Redis ignores the others, without a reply
            self._start = base + at
            self._left = self._arguments = count
            self._wanted = 1
            self._words = []
        return line_end + 2

    def _inline(self, buffer: bytes, at: int, base: int) -> int:
        """A command as a line of text; it may end with a bare line feed."""
        line_end = buffer.find(b"\n", at)
        if line_end < 0:
            is_text = 0x20 <= buffer[at] < 0x7F or buffer[at] in b"\r\t"
            return -1 if is_text else self._refuse(base + at, buffer, base)
        words = buffer[at:line_end].split()
        if words:
            self._start = base + at
            self._left = 0
            self._arguments = len(words)
            self._words = words[:3]
        return line_end + 1

    def _argument(self, buffer: bytes, at: int, line_end: int, base: int) -> int:
        if line_end < 0:
            return self._wait(self._start, buffer, at, base)
        length = number_of(buffer[at:line_end])
        if length < 0 or buffer[at] != Type.BULK_STRING:
            return self._refuse(self._start, buffer, base)
        begin = line_end + 2
        end = begin + length
        words = self._words
        if len(words) < self._wanted:
            if length > WORD_LIMIT:
                words.append(b"")
            elif end > len(buffer):
                return -1
            else:
                words.append(buffer[begin:end])
            if len(words) == 1 and command_of(words[0], b"").subcommands:
                self._wanted = 3
        self._left -= 1
        return end + 2

    def _wait(self, start: int, buffer: bytes, at: int, base: int) -> int:
        """The header at ``at`` is not complete."""
        return self._refuse(start, buffer, base) if len(buffer) - at > HEADER_LIMIT else -1

    def _refuse(self, start: int, buffer: bytes, base: int) -> int:
        """The request that begins at ``start`` breaks the protocol."""
        self._start = start
        self._words = [b""]
        self._arguments = 1
        self._complete(base + len(buffer))
        self.lost = True
        return len(buffer)

    def _complete(self, end: int) -> None:
        self._left = -1
        words = self._words
        command = command_of(words[0], words[1] if len(words) > 1 else b"")
        special = command.replies is not Replies.ONE or self._silence is not Silence.NONE
        if special and not self._is_answered(command):
            self.one_way += 1
            return
        self._pending.append((self._start, end, command, self._arguments))

    def _is_answered(self, command: Command) -> bool:
        if command.replies is Replies.CLIENT_REPLY:
            mode = self._words[2].upper() if len(self._words) > 2 else b""
            if mode == b"ON":
                self._silence = Silence.NONE
            elif mode == b"OFF":
                self._silence = Silence.ALL
            elif mode == b"SKIP" and self._silence is not Silence.ALL:
                self._silence = Silence.NEXT
                return False
        elif command.replies is Replies.RESET:
            self._silence = Silence.NONE
        elif command.replies is Replies.REPLICATION:
            self.lost = True
        # Confirmations count as pushes, which Redis sends whether replies are on or off.
        silenced = self._silence is not Silence.NONE and command.replies is not Replies.SUBSCRIPTION
        if self._silence is Silence.NEXT:
            self._silence = Silence.NONE
        return not silenced
