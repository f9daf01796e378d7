"""What figures are measured with: pinned processes, the agent, the kernel part alone, an OTLP sink.

Everything is a context manager that leaves nothing behind. A process is pinned by the affinity that it inherits, so
that all its threads have it. The first core is the servers', the second the load generator's; what else runs is said
by each figure.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.figures import Unmeasurable
from support.agent import Agent
from support.processes import Process, free_port

#: spans nobody looks at, at the least cost that an exporter can have
DISCARD: Mapping[str, Any] = {"debug": {"verbosity": "basic"}}
_DISCARDING_SERVER = Path(__file__).with_name("discard.py")


@dataclass(frozen=True, slots=True)
class Cores:
    """The two cores in use, for sched_setaffinity. both: they and no other."""

    server: frozenset[int]
    load: frozenset[int]

    @property
    def both(self) -> frozenset[int]:
        return self.server | self.load


def cores() -> Cores:
    """The first two that this process may use; Unmeasurable if it has only one."""
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        raise Unmeasurable("needs two cores")
    return Cores(frozenset(usable[:1]), frozenset(usable[1:2]))


@contextmanager
def pinned(to: frozenset[int]) -> Iterator[None]:
    """What is started in the block runs there; this thread too, until the block ends."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, to)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@dataclass(slots=True)
class Ledger:
    """Where the exchanges of all runs of an agent went, from the identities that it logs at its end."""

    observed: int = 0
    exported: int = 0
    dropped: int = 0
    unaccounted: int = 0

    def add(self, log: str) -> None:
        """Count a run in. Raises ValueError if its log has no identity."""
        identities = [entry for entry in _entries(log) if entry["msg"] == "exchanges"]
        if not identities:
            raise ValueError(f"the agent logged no identity\n{log}")
        last = identities[-1]
        self.observed += last["observed"]
        self.exported += last["exported"]
        self.dropped += sum(last["dropped"].values())
        self.unaccounted += abs(last["unaccounted"])

    @property
    def dropped_percent(self) -> float:
        return 100 * self.dropped / self.observed if self.observed else 0.0

    def __str__(self) -> str:
        return (
            f"{self.observed:,} exchanges observed, {self.exported:,} exported, {self.dropped:,} dropped and counted "
            f"({self.dropped_percent:.2g} %), {self.unaccounted:,} unaccounted for"
        )


def _entries(log: str) -> Iterator[dict[str, Any]]:
    """The lines that the agent logged as JSON; an exporter may write others to the same file."""
    for line in log.splitlines():
        if line.startswith("{"):
            yield json.loads(line)


@contextmanager
def agent(
    exporters: Mapping[str, Any],
    folder: Path,
    ledger: Ledger | None = None,
    on: frozenset[int] | None = None,
    receiver: Mapping[str, Any] | None = None,
    signals: Sequence[str] = ("traces",),
) -> Iterator[Agent]:
    """A ready agent that watches the whole machine, pinned to the cores ``on``."""
    pipeline = {"receivers": ["ebpf"], "exporters": list(exporters)}
    configuration = {
        "receivers": {"ebpf": receiver or {}},
        "exporters": exporters,
        "service": {
            "pipelines": dict.fromkeys(signals, pipeline),
            "telemetry": {"logs": {"encoding": "json"}},
        },
    }
    with pinned(on or cores().both):
        running = Agent(configuration, folder)
    try:
        yield running
    finally:
        running.process.stop()
    if ledger is not None:
        ledger.add(running.log)


@contextmanager
def discarding_server(folder: Path) -> Iterator[int]:
    """An OTLP server over gRPC that acknowledges everything and keeps nothing; its port."""
    port = free_port()
    with pinned(cores().both):
        process = Process("discard", [sys.executable, _DISCARDING_SERVER, str(port)], folder)
    with process:
        process.wait_for_port(port)
        yield port


def otlp_grpc(port: int, **settings: Any) -> Mapping[str, Any]:
    """An exporter to a server on this machine."""
    return {"otlp_grpc": {"endpoint": f"http://127.0.0.1:{port}", **settings}}


def output(command: Sequence[str | Path], on: frozenset[int]) -> str:
    """What a program that runs on these cores prints; CalledProcessError if it fails."""
    with pinned(on):
        return subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True).stdout
