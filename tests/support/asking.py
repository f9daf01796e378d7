"""A client of ``tests/programs/pid_server.py`` that asks when it is told to, and servers of it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from support.exchanges import PROGRAMS
from support.processes import Process, free_port
from support.servers import Listening

_CGROUPS = {"v1": Path("/sys/fs/cgroup/pids"), "v2": Path("/sys/fs/cgroup/unified")}


class Client:
    """As a context manager it has ended at the end of the block, and with it its connections."""

    def __init__(self, *ports: int, executable: Path | None = None, service: str = "asking") -> None:
        command = [executable or Path(sys.executable), PROGRAMS / "pid_client.py", *ports]
        self.popen = subprocess.Popen(
            [str(word) for word in command],
            env={"OTEL_SERVICE_NAME": service},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def pid(self) -> int:
        return self.popen.pid

    def ask(self, connections: int, requests: int) -> Counter[int]:
        """So many requests over each of so many new connections to each port, or, if 0, over those that there are: how
        often which process answered."""
        assert self.popen.stdin is not None
        assert self.popen.stdout is not None
        self.popen.stdin.write(f"{connections} {requests}\n")
        self.popen.stdin.flush()
        return Counter({int(pid): count for pid, count in json.loads(self.popen.stdout.readline()).items()})

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.popen.communicate(timeout=10)


@contextmanager
def answering(
    folder: Path, name: str, mode: str = "alone", *arguments: object, executable: Path | None = None
) -> Iterator[Listening]:
    """A server whose service is ``name``."""
    port = free_port()
    environment: Mapping[str, str] = {"OTEL_SERVICE_NAME": name}
    words = [executable or Path(sys.executable), PROGRAMS / "pid_server.py", str(port), mode, *map(str, arguments)]
    with Process(name, words, folder, environment) as process:
        process.wait_for_port(port)
        yield Listening(process, port)


def interpreter(folder: Path, name: str) -> Path:
    """A copy of the Python interpreter: an executable of its own, for scripts that need only the standard library."""
    folder.mkdir(exist_ok=True)
    return Path(shutil.copy(Path(sys.executable).resolve(), folder / name))


@contextmanager
def control_group(version: str, name: str) -> Iterator[Path]:
    """A new group of a v1 hierarchy (of the controller pids) or of the v2 one; removed when those in it have ended."""
    group = _CGROUPS[version] / name
    group.mkdir(parents=True)
    try:
        yield group
    finally:
        group.rmdir()


def in_group(group: Path, words: Sequence[str | Path]) -> list[str]:
    """A command that moves itself into a control group before it begins: its sockets are of it."""
    return ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(group / "cgroup.procs"), *map(str, words)]


def move(pid: int, group: Path) -> None:
    (group / "cgroup.procs").write_text(str(pid))
