"""Draws frames on a terminal, each in place of the one before.

A frame begins at the top left, as with `top`, and leaves every mode of the terminal as it is: nothing has to be restored,
however the process ends, and what a resize, a typed Enter or another program has torn is whole again with the next
frame. What stood there before the first frame, and log lines that come later, are scrolled up into the terminal's
history.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Final, TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.segment import Segment, Segments
from rich.text import Text

_HOME, _ERASE_LINE, _ERASE_BELOW, _ERASE_ALL = "\x1b[H", "\x1b[K", "\x1b[J", "\x1b[2J"
_TAB: Final = 8

#: what our own texts have beyond ASCII
_IN_ASCII: Final = str.maketrans({"→": ">", "←": "<", "…": "~", "µ": "u", "·": "|", "–": "-", "—": "-", "×": "x"})


class Screen:
    """Safe from any thread. Raises OSError, as far as ``stream`` does."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._console = Console(file=stream, highlight=False, markup=False, emoji=False)
        self._unicode = _can_encode(stream, "→µ…")
        self._lock = Lock()  # guards all below
        self._size: tuple[int, int] | None = None  # of the frame that is shown
        self._frame = ""

    def size(self) -> tuple[int, int]:
        """Columns and lines that a frame may have: a full line, or a last one, would move what is above it."""
        columns, lines = self._terminal_size()
        return max(1, columns - 1), max(1, lines - 1)

    @property
    def has_frame(self) -> bool:
        return self._size is not None

    def draw(self, lines: Sequence[Text]) -> None:
        """Show a frame of at most ``size()``."""
        frame = _HOME + self._rendered(lines) + _ERASE_BELOW
        with self._lock:
            size = self._terminal_size()
            scroll = "\n" * (size[1] - 1) if self._size is None else ""  # what is there goes up
            torn = _ERASE_ALL if self._size not in (None, size) else ""
            self._size, self._frame = size, frame
            self._write(scroll + torn + frame)

    def write_above(self, text: str) -> None:
        """Write whole lines that are to stay: into the history, if there is a frame."""
        with self._lock:
            if self._size is None:
                self._write(text)
                return
            columns, lines = self._size
            text = text.expandtabs(_TAB)
            rows = sum(max(1, -(-cell_len(line) // columns)) for line in text.splitlines())
            scrolled = max(0, rows + 1 - lines)  # by the writing itself
            scroll = f"\x1b[{lines};1H" + "\n" * (rows - scrolled)
            self._write(_HOME + _ERASE_BELOW + text.replace("\n", "\r\n") + scroll + self._frame)

    def finish(self, lines: Sequence[Text]) -> None:
        """Leave these lines in place of the frame; what is written from now on comes below them."""
        rendered = self._rendered(lines)
        with self._lock:
            shown, self._size = self._size is not None, None
            self._write(_HOME + rendered + _ERASE_BELOW if shown else rendered)

    def shares(self, stream: TextIO) -> bool:
        """Whether the other stream leads to the same terminal."""
        try:
            return stream.isatty() and os.ttyname(stream.fileno()) == os.ttyname(self._stream.fileno())
        except (OSError, ValueError):
            return False

    def _rendered(self, lines: Sequence[Text]) -> str:
        columns, _ = self.size()
        segments: list[Segment] = []
        for line in lines:
            fitting = line if line.cell_len <= columns else _clipped(line, columns)
            segments += (*fitting.render(self._console), Segment.line())
        with self._console.capture() as capture:
            self._console.print(Segments(segments), end="", crop=False)  # laid out already: a third of the time
        rendered = capture.get()
        if not self._unicode:
            rendered = rendered.translate(_IN_ASCII)
        return rendered.replace("\n", f"{_ERASE_LINE}\r\n")

    def _terminal_size(self) -> tuple[int, int]:
        """Columns and lines; a terminal that does not know them says 0."""
        try:
            size = os.get_terminal_size(self._stream.fileno())
        except OSError:  # it is gone, which writing will say
            return 80, 24
        return size.columns or 80, size.lines or 24

    def _write(self, text: str) -> None:
        encoding = self._stream.encoding or "utf-8"
        self._stream.write(text.encode(encoding, "replace").decode(encoding))
        self._stream.flush()


class LogStream:
    """What a log handler writes to instead of the terminal that the frames are on."""

    def __init__(self, screen: Screen, note: Callable[[str], None]) -> None:
        self._screen = screen
        self._note = note

    def write(self, text: str) -> int:
        self._note(text)
        self._screen.write_above(text)
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""


def _clipped(line: Text, columns: int) -> Text:
    """A copy: the line is shown again, perhaps where there is more room."""
    clipped = line.copy()
    clipped.truncate(columns, overflow="ellipsis")
    return clipped


def _can_encode(stream: TextIO, text: str) -> bool:
    try:
        text.encode(stream.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True
