"""Real processes for tests: started in a folder of their own, waited for, ended by their process id."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from support.waiting import wait_until

STOP_TIMEOUT = 10.0


def free_port(address: str = "127.0.0.1") -> int:
    """A TCP port that nothing listens on at this moment."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


def accepts(port: int, address: str = "127.0.0.1") -> bool:
    """Whether something accepts connections there."""
    try:
        socket.create_connection((address, port), timeout=1).close()
    except OSError:
        return False
    return True


class Process:
    """A process whose output goes to ``folder/name.log``. As a context manager it has ended at the end of the block."""

    def __init__(
        self, name: str, command: Sequence[str | Path], folder: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self._log = folder / f"{name}.log"
        with self._log.open("wb") as log:
            self.popen = subprocess.Popen(
                [str(word) for word in command],
                cwd=folder,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def log(self) -> str:
        """What it wrote so far."""
        return self._log.read_text(errors="replace")

    def wait_for_log(self, text: str, timeout: float = 20.0) -> None:
        """Until its output holds ``text``; AssertionError with the output when it ends before, or at the timeout."""
        self._wait(f"{text!r} in its output", lambda: text in self.log, timeout)

    def wait_for_port(self, port: int, address: str = "127.0.0.1", timeout: float = 20.0) -> None:
        """Until it accepts connections; errors as those of wait_for_log."""
        self._wait(f"port {port} accepts", lambda: accepts(port, address), timeout)

    def _wait(self, what: str, condition: Callable[[], bool], timeout: float) -> None:
        def ended_or_ready() -> bool:
            return condition() or self.popen.poll() is not None

        try:
            wait_until(f"{self.name}: {what}", ended_or_ready, timeout)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log}") from None
        assert condition(), f"{self.name} ended with status {self.popen.returncode} before: {what}\n{self.log}"

    def stop(self, by: signal.Signals = signal.SIGTERM) -> int:
        """End it by a signal, by SIGKILL if it is still there 10 s later; the exit status. May be called again."""
        if self.popen.poll() is None:
            self.popen.send_signal(by)
        try:
            return self.popen.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            return self.popen.wait()

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
