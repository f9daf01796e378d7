"""What it costs to stand in the middle: OTLP in, ``batch``, OTLP out, at 10,000 spans a second, by gRPC with gzip.

wirespan and, where it was built, the OpenTelemetry Collector run beside each other with the same pipeline and get the load in
turn, each on the first core alone; client and server share the second. Processor time is that of all threads from the first
request until the last batch has left. Memory is the resident size, of which the Collector's own test bed speaks too.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tools
from bench.agent_time import processor_seconds
from bench.figures import Figure, Plan, Target, spread
from bench.memory import megabytes
from bench.surroundings import Ledger, cores, otlp_grpc, output, pinned
from support import servers
from support.agent import Agent
from support.processes import Process, free_port

_SINK = Path(__file__).parents[1] / "tests" / "sink.py"
_SENDER = Path(__file__).with_name("send_spans.py")
_WARM_UP = 2
#: twice the time that a batch waits
_SETTLE = 0.5


@dataclass
class _Relay:
    """Something that takes OTLP on a port, and its figures: processor time in % of a core, and MB."""

    name: str
    pid: int
    port: int
    shares: list[float] = field(default_factory=list)
    sizes: list[float] = field(default_factory=list)

    def load(self, seconds: int) -> tuple[int, float]:
        """Send for so long. Returns the number of spans, and the processor time in % of a core."""
        used = processor_seconds(self.pid)
        spans = int(output([sys.executable, _SENDER, str(self.port), str(seconds)], cores().load))
        time.sleep(_SETTLE)
        return spans, 100 * (processor_seconds(self.pid) - used) / seconds

    def __str__(self) -> str:
        return f"{self.name} {self.shares[-1]:.1f} % {self.sizes[-1]:.0f} MB"


def measure(plan: Plan) -> list[Figure]:
    ledger, seconds, sent = Ledger(), 2 if plan.quick else 4, 0
    with ExitStack() as stack:
        sink = stack.enter_context(_counting_server(plan.folder))
        relays = [stack.enter_context(_wirespan(plan.folder, sink.port, ledger))]
        if tools.find("otelcol") is not None:
            relays.append(stack.enter_context(_collector(plan.folder, sink.port)))
        for relay in relays:
            sent += relay.load(_WARM_UP)[0]
        for number in range(plan.rounds):
            for relay in relays:
                spans, share = relay.load(seconds)
                sent += spans
                relay.shares.append(share)
                relay.sizes.append(megabytes(relay.pid, "Rss"))
            plan.say(f"{number + 1}/{plan.rounds}  {', '.join(map(str, relays))}")
    return _figures(relays, ledger, sent - sink.count())


def _figures(relays: list[_Relay], ledger: Ledger, missing: int) -> list[Figure]:
    flaw = f"{missing} spans did not arrive" if missing else ""
    notes = ["gRPC with gzip, requests of 100 spans of 550 B; batch with its defaults; on one core"]
    ours, *others = relays
    notes += [f"{_quoted(other.shares)} % for the {other.name}, in turn" for other in others]
    more = [f"{_quoted(other.sizes)} MB for the {other.name}" for other in others]
    what = "OTLP in, batch, OTLP out, 10,000 spans/s"
    return [
        Figure(
            f"{what}: processor time",
            Target.AT_MOST,
            25,
            "% of a core",
            ours.shares,
            flaw=flaw,
            notes=[*notes, str(ledger).replace("exchanges", "spans")],
        ),
        Figure(f"{what}: resident memory", Target.AT_MOST, 120, "MB", ours.sizes, flaw=flaw, notes=more),
    ]


def _quoted(values: list[float]) -> str:
    low, median, high = spread(values)
    return f"{median:.1f} ({low:.1f} to {high:.1f})"


@contextmanager
def _wirespan(folder: Path, port: int, ledger: Ledger) -> Iterator[_Relay]:
    own_port = free_port()
    pipeline = {"receivers": ["otlp"], "processors": ["batch"], "exporters": ["otlp_grpc"]}
    configuration: dict[str, Any] = {
        "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": f"127.0.0.1:{own_port}"}}}},
        "processors": {"batch": None},
        "exporters": otlp_grpc(port, compression="gzip"),
        "service": {"pipelines": {"traces": pipeline}, "telemetry": {"logs": {"encoding": "json"}}},
    }
    with pinned(cores().server):
        agent = Agent(configuration, folder)
    try:
        yield _Relay("wirespan", agent.pid, own_port)
    finally:
        agent.process.stop()
    ledger.add(agent.log)


@contextmanager
def _collector(folder: Path, port: int) -> Iterator[_Relay]:
    with ExitStack() as stack:
        with pinned(cores().server):
            collector = stack.enter_context(servers.relay(folder / "collector", "otlp_grpc", port, batch={}))
        yield _Relay("Collector", collector.process.pid, collector.grpc_port)


@dataclass(frozen=True)
class _Counting:
    port: int
    counts: Path

    def count(self) -> int:
        """Spans that arrived; once it has ended."""
        return int(json.loads(self.counts.read_text())["spans"])


@contextmanager
def _counting_server(folder: Path) -> Iterator[_Counting]:
    port, counts = free_port(), folder / "counts.json"
    command = [sys.executable, _SINK, "--grpc", str(port), "--count-only", "--out", counts]
    with pinned(cores().load):
        process = Process("sink", command, folder)
    with process:
        process.wait_for_port(port)
        yield _Counting(port, counts)
