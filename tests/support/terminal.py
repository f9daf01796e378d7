"""A terminal with a process in it, as a user has it: a pseudo-terminal, and an emulator that knows what its screen shows."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock, Thread
from types import TracebackType

import pyte

from support.waiting import wait_until

_HISTORY = 1_000


class Terminal:
    """Runs a command with a terminal of its own as stdin, stdout, stderr and controlling terminal."""

    def __init__(
        self,
        command: Sequence[str | Path],
        columns: int = 120,
        lines: int = 40,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._master, slave = pty.openpty()
        self._slave = slave
        self._lock = Lock()  # guards the screen
        self._screen = pyte.HistoryScreen(columns, lines, history=_HISTORY, ratio=0.5)
        self._stream = pyte.ByteStream(self._screen)
        #: everything that was written, as it was
        self.output = b""
        self._set_size(columns, lines)
        self.modes = termios.tcgetattr(slave)
        self.popen = subprocess.Popen(
            [str(word) for word in command],
            preexec_fn=lambda: os.login_tty(slave),
            env={**os.environ, "TERM": "xterm-256color", **(environment or {})},
        )
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def lines(self) -> list[str]:
        """What the screen shows."""
        with self._lock:
            return [line.rstrip() for line in self._screen.display]

    @property
    def text(self) -> str:
        return "\n".join(self.lines).rstrip()

    @property
    def history(self) -> list[str]:
        """What was scrolled off the screen."""
        with self._lock:
            columns = range(self._screen.columns)
            return ["".join(line[column].data for column in columns).rstrip() for line in self._screen.history.top]

    @property
    def cursor(self) -> tuple[int, int]:
        """Column and line, from 0."""
        with self._lock:
            return self._screen.cursor.x, self._screen.cursor.y

    @property
    def cursor_hidden(self) -> bool:
        with self._lock:
            return bool(self._screen.cursor.hidden)

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def resize(self, columns: int, lines: int) -> None:
        with self._lock:
            self._screen.resize(lines, columns)
        self._set_size(columns, lines)

    def current_modes(self) -> list[object]:
        return termios.tcgetattr(self._slave)

    def wait_for(self, text: str, timeout: float = 20.0) -> None:
        """Until the screen shows ``text``."""
        try:
            wait_until(f"{text!r} on the screen", lambda: text in self.text, timeout)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.text}") from None

    def wait_for_end(self, timeout: float = 15.0) -> int:
        """The exit status, once all that was written is on the screen."""
        status = self.popen.wait(timeout)
        # The reader has seen everything once it sees what is written last.
        mark = b"\x1b]2;end\x07"
        os.write(self._slave, mark)
        wait_until("all is read", lambda: self.output.endswith(mark))
        return status

    def _set_size(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._master, 65536)
            except OSError:
                return
            if not data:
                return
            with self._lock:
                self._stream.feed(data)
                self.output += data

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
            try:
                self.popen.wait(10)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()
        os.close(self._slave)
        os.close(self._master)
