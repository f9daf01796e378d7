"""What the programs in the kernel cost alone: redis-benchmark with them attached, and nobody draining.

The rings are small and full after a moment, from when on each record is made and then discarded. No process of the
agent runs.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from bench.figures import Figure, Plan, Target, interleave
from bench.redis_load import redis_load
from wirespan.pipeline.counters import Counters
from wirespan.receiver.ebpf import EbpfConfig, kernel_settings
from wirespan.receiver.kernel.session import KernelSession

_EVERY_EXCHANGE = {"spans": {"probability": 1.0}}
#: bytes of each ring
_RING = 65_536


def measure(plan: Plan) -> list[Figure]:
    counters = Counters()
    requests = 40_000 if plan.quick else 80_000
    with redis_load(plan.folder) as load:

        def rate() -> Sequence[float]:
            return [load.requests_per_second(requests)]

        (rates,) = interleave(plan, rate, lambda: attached(counters), lambda step: f"{-step.added_percent:+.1f} %")
    base = statistics.median(step.before for step in rates.unchanged)
    return [
        Figure(
            "redis-benchmark, kernel part alone: fewer requests/s",
            Target.AT_MOST,
            5,
            "%",
            [-step.added_percent for step in rates.changed],
            [-step.added_percent for step in rates.unchanged],
            noise_excuses=True,
            notes=[f"50 connections, {base:,.0f} requests/s without; {_discarded(counters)}"],
        )
    ]


@contextmanager
def attached(counters: Counters) -> Iterator[None]:
    """The programs with the receiver's defaults but for the rings, and that every exchange is a record."""
    settings = kernel_settings(EbpfConfig.model_validate(_EVERY_EXCHANGE), with_metrics=False)
    rings = {"exchanges_size": _RING, "long_exchanges_size": _RING, "segments_size": _RING}
    session = KernelSession(replace(settings, **rings), counters)
    try:
        yield
    finally:
        session.close()


def _discarded(counters: Counters) -> str:
    sums = counters.snapshot()
    observed = sums[("wirespan.exchanges.observed", ())]
    dropped = sums[("wirespan.exchanges.dropped", (("reason", "ring_full"),))]
    return f"of {observed:,} records {dropped:,} were discarded at the ring"
