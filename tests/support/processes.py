"""Real processes for tests: started in a folder of their own, waited for, ended by their process id."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import TracebackType

from support.waiting import wait_until

STOP_TIMEOUT = 10.0
_FIRST_PORT, _LAST_PORT = 10_000, 65_535


def free_port(address: str = "127.0.0.1") -> int:
    """A port, of TCP and of UDP, that nobody listens on and that no other test gets, whoever else runs tests on this
    machine.

    One that was free a moment ago may be the source port of somebody's connection now, or be given to another process
    of tests. So it is from outside of the range that the kernel takes source ports from, and reserved, as long as this
    process lives, by a lock on its byte of a file. It is so in every network namespace: an agent watches it in all.
    """
    for port in _own_ports():
        if _is_free(port, address):
            return port
    raise AssertionError("no port is free")


@cache
def _own_ports() -> Iterator[int]:
    """Each one is given once in the life of this process."""
    path = Path(tempfile.gettempdir(), f"wirespan-test-ports-{os.geteuid()}")
    # Never closed: closing any descriptor of the file gives up all locks of the process on it.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def reserved() -> Iterator[int]:
        for port in _candidates():
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
            except OSError:
                continue
            yield port

    return reserved()


def _candidates() -> list[int]:
    """In an order of this process: others seldom try the same one."""
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    every = range(_FIRST_PORT, _LAST_PORT + 1)
    # Where the kernel may choose any of them, it may.
    ports = [port for port in every if not first <= port <= last] or list(every)
    return random.Random().sample(ports, len(ports))


def _is_free(port: int, address: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            with socket.socket(family, kind) as probe:
                probe.bind((address, port))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        return False
    return True


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
