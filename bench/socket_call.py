"""Added time per socket call: ``pingpong.c`` on one core, with and without an agent that drains on the other.

The whole machine is watched. Once every exchange becomes a record at each side, and all are drained and translated; once
all are counted for metrics, and one in a hundred becomes a record. The spans are counted by the ``debug`` exporter
(``verbosity: basic``, a line a batch), because what an exporter costs is paid on the other core. Records that found the
ring full cost the program less, so their share is quoted.
"""

from __future__ import annotations

import statistics
import subprocess
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from bench.figures import Figure, Plan, Target, interleave
from bench.surroundings import DISCARD, Ledger, agent, cores, output
from support.availability import need_command

_SOURCE = Path(__file__).with_name("pingpong.c")


class _Case(NamedTuple):
    what: str
    limit: float
    probability: float
    signals: Sequence[str]


_CASES = (
    _Case("time added to a socket call", 600, 1.0, ("traces",)),
    _Case("time added to a socket call, metrics on, spans at 1 %", 350, 0.01, ("traces", "metrics")),
)


def measure(plan: Plan) -> list[Figure]:
    program = plan.folder / "pingpong"
    subprocess.run([need_command("cc"), "-O2", "-o", program, _SOURCE], check=True)
    return [_figure(plan, program, case) for case in _CASES]


def _figure(plan: Plan, program: Path, case: _Case) -> Figure:
    use, ledger = cores(), Ledger()
    round_trips = 40_000 if plan.quick else 80_000
    receiver = {"spans": {"probability": case.probability}}
    (core,) = use.load

    def nanoseconds() -> Sequence[float]:
        return [float(output([program, str(round_trips), str(core)], use.load))]

    def draining() -> AbstractContextManager[object]:
        return agent(DISCARD, plan.folder, ledger, on=use.server, receiver=receiver, signals=case.signals)

    (calls,) = interleave(plan, nanoseconds, draining, lambda step: f"{step.added:+.0f} ns")
    base = statistics.median(step.before for step in calls.unchanged)
    return Figure(
        case.what,
        Target.AT_MOST,
        case.limit,
        "ns",
        [step.added for step in calls.changed],
        [step.added for step in calls.unchanged],
        notes=[
            f"128 B ping-pong on one core, {base:,.0f} ns a call without",
            f"agent draining on the other, exporter debug with verbosity basic; {ledger}",
        ],
    )
