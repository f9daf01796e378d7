"""redis-benchmark against a machine that is watched as a configuration without any option has it: metrics of all exchanges, and
spans within their budget. The agent and a server that only acknowledges are included.

As export_load, but with so many rounds that an interval can be told; beside the rate, the processor time that the whole machine
takes a request, from ``/proc/stat``, since a rate says nothing of what a core to spare takes.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from bench.figures import Figure, Plan, Step, Target, interleave, median_interval
from bench.redis_load import WARM_UP, redis_load
from bench.surroundings import Ledger, agent, discarding_server, otlp_grpc

_ROUNDS = 20


def measure(plan: Plan) -> list[Figure]:
    ledger = Ledger()
    requests = 40_000 if plan.quick else 100_000
    with redis_load(plan.folder) as load, discarding_server(plan.folder) as port:

        def rate() -> Sequence[float]:
            used = busy_seconds()
            per_second = load.requests_per_second(requests)
            return [per_second, 1e6 * (busy_seconds() - used) / (requests + WARM_UP)]

        @contextmanager
        def watching() -> Iterator[None]:
            with agent(otlp_grpc(port), plan.folder, ledger, receiver={"spans": {}}, signals=("traces", "metrics")):
                yield

        rounds = plan.rounds if plan.quick else max(plan.rounds, _ROUNDS)
        rates, times = interleave(replace(plan, rounds=rounds), rate, watching, _percent)
    fewer = [-step.added_percent for step in rates.changed]
    low, high = median_interval(fewer)
    base = statistics.median(step.before for step in rates.unchanged)
    base_time = statistics.median(step.before for step in times.unchanged)
    more = statistics.median(step.added_percent for step in times.changed)
    return [
        Figure(
            "redis-benchmark, default configuration: fewer requests/s",
            Target.AT_MOST,
            5,
            "%",
            fewer,
            [-step.added_percent for step in rates.unchanged],
            flaw=f"{ledger.unaccounted} exchanges unaccounted for" if ledger.unaccounted else "",
            notes=[
                f"{len(fewer)} rounds, 95 % interval of the median {low:.1f} to {high:.1f} %",
                f"50 connections, {base:,.0f} requests/s without",
                f"processor time of the machine a request {base_time:.1f} µs without, {more:+.1f} % with; {ledger}",
            ],
        )
    ]


def _percent(step: Step) -> str:
    return f"{step.added_percent:+.1f} %"


def busy_seconds() -> float:
    """What all CPUs have worked since the machine started: everything but idle and waiting for disks (proc(5))."""
    user, nice, system, _idle, _iowait, *rest = map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:])
    interrupts = sum(rest[:2])
    return (user + nice + system + interrupts) / os.sysconf("SC_CLK_TCK")
