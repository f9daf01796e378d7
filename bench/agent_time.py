"""What the agent itself takes at the highest rate that redis-benchmark reaches: metrics on, one in a hundred exchanges a span.

Its processor time is that of all its threads, in user space and in the kernel, from its ``/proc/PID/stat``; what its programs
take in the calls of others is not in it, and is another figure.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from bench.figures import Figure, Plan, Target
from bench.redis_load import redis_load
from bench.surroundings import Ledger, agent, cores, discarding_server, otlp_grpc, pinned
from support.processes import Process


def measure(plan: Plan) -> list[Figure]:
    ledger, shares = Ledger(), list[float]()
    seconds = 3 if plan.quick else 8
    with (
        redis_load(plan.folder) as load,
        discarding_server(plan.folder) as sink,
        agent(
            otlp_grpc(sink),
            plan.folder,
            ledger,
            receiver={"spans": {"probability": 0.01}, "metrics": {"interval": "1s"}},
            signals=("traces", "metrics"),
        ) as watching,
        pinned(cores().load),
        Process("redis-benchmark", load.endless(), plan.folder),
    ):
        time.sleep(seconds)
        for number in range(plan.rounds):
            begin, used = time.monotonic(), processor_seconds(watching.pid)
            time.sleep(seconds)
            shares.append(100 * (processor_seconds(watching.pid) - used) / (time.monotonic() - begin))
            plan.say(f"{number + 1}/{plan.rounds}  {shares[-1]:.2f} % of a core")
    total = seconds * (plan.rounds + 1)
    return [
        Figure(
            "the agent's own processor time under redis-benchmark, metrics on, spans at 1 %",
            Target.AT_MOST,
            3,
            "% of a core",
            shares,
            notes=[
                f"50 connections; some {ledger.observed / total:,.0f} exchanges/s at both ends; metrics each second; {ledger}"
            ],
        )
    ]


def processor_seconds(pid: int) -> float:
    """utime and stime of a process, all threads (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
