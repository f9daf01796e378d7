"""redis-benchmark against a machine on which every exchange is exported as two spans, agent and OTLP server included.

redis-server and redis-benchmark have a core each and fill it; the agent and a server that only acknowledges run
wherever there is room on the same two cores. What the agent has not sent when the load ends it sends afterwards, at
nobody's cost: the time that its end takes tells how much that was.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from bench.figures import Figure, Plan, Target, interleave
from bench.redis_load import redis_load
from bench.surroundings import Ledger, agent, discarding_server, otlp_grpc


def measure(plan: Plan) -> list[Figure]:
    ledger, endings = Ledger(), list[float]()
    requests = 60_000 if plan.quick else 150_000
    with redis_load(plan.folder) as load, discarding_server(plan.folder) as port:

        def rate() -> Sequence[float]:
            return [load.requests_per_second(requests)]

        @contextmanager
        def exporting() -> Iterator[None]:
            with agent(otlp_grpc(port, compression="none"), plan.folder, ledger):
                yield
                end = time.monotonic()
            endings.append(time.monotonic() - end)

        (rates,) = interleave(plan, rate, exporting, lambda step: f"{-step.added_percent:+.1f} %")
    base = statistics.median(step.before for step in rates.unchanged)
    return [
        Figure(
            "redis-benchmark, every exchange exported as two spans: fewer requests/s",
            Target.AT_MOST,
            25,
            "%",
            [-step.added_percent for step in rates.changed],
            [-step.added_percent for step in rates.unchanged],
            flaw=f"{ledger.unaccounted} exchanges unaccounted for" if ledger.unaccounted else "",
            notes=[
                f"50 connections, {base:,.0f} requests/s without; otlp_grpc, compression none; {ledger}",
                f"the agent's end, with what was left to send, took {statistics.median(endings):.1f} s",
            ],
        )
    ]
