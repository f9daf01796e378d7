"""What a service with spare time feels: the latency of nginx at 2,000 requests/s, with and without the agent.

h2load sends at that rate in bursts, one every 10 ms, and logs the time of each request in µs. It has few connections,
because with many the requests of a burst would wait for each other. The agent watches the whole machine and exports
to a server that only acknowledges. nginx and h2load have a core each; agent and server run on either.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from bench.figures import Comparison, Figure, Plan, Target, interleave
from bench.surroundings import Ledger, agent, cores, discarding_server, otlp_grpc, output, pinned
from support import servers
from support.availability import need_command

_RATE, _CONNECTIONS = 2_000, 4


def measure(plan: Plan) -> list[Figure]:
    ledger = Ledger()
    requests = _RATE * (1 if plan.quick else 3)
    with ExitStack() as stack:
        with pinned(cores().server):
            nginx = stack.enter_context(servers.nginx(plan.folder))
        sink = stack.enter_context(discarding_server(plan.folder))

        def latencies() -> Sequence[float]:
            return percentiles(response_times(nginx.port, requests, plan.folder / "requests.tsv"))

        def watching() -> AbstractContextManager[object]:
            return agent(otlp_grpc(sink), plan.folder, ledger)

        p50, p99 = interleave(plan, latencies, watching, lambda step: f"{step.added_percent:+.1f} %")
    return [_figure("p50", p50, []), _figure("p99", p99, [f"otlp_grpc with its defaults; {ledger}"])]


def response_times(port: int, requests: int, log: Path) -> list[int]:
    """Microseconds from a request to the end of its response, of that many at the fixed rate."""
    log.unlink(missing_ok=True)  # h2load appends
    per_connection = ["--rps", str(_RATE // _CONNECTIONS), "-c", str(_CONNECTIONS), "-t", "1"]
    command: list[str | Path] = [
        need_command("h2load"),
        "--h1",
        *per_connection,
        "-n",
        str(requests),
        "--log-file",
        log,
    ]
    output([*command, f"http://127.0.0.1:{port}/"], cores().load)
    rows = [line.split("\t") for line in log.read_text().splitlines()]
    refused = [row for row in rows if row[1] != "200"]
    if refused or len(rows) != requests:
        raise ValueError(f"of {requests} requests {len(rows)} were answered, {len(refused)} not with 200")
    return [int(row[2]) for row in rows]


def percentiles(times: Sequence[int]) -> tuple[float, float]:
    """The median and the 99th percentile."""
    hundredths = statistics.quantiles(times, n=100, method="inclusive")
    return hundredths[49], hundredths[98]


def _figure(name: str, comparison: Comparison, notes: Sequence[str]) -> Figure:
    base = statistics.median(step.before for step in comparison.unchanged)
    return Figure(
        f"nginx at {_RATE:,} requests/s: {name} added",
        Target.AT_MOST,
        2,
        "%",
        [step.added_percent for step in comparison.changed],
        [step.added_percent for step in comparison.unchanged],
        noise_excuses=True,
        notes=[f"{base:.0f} µs without; h2load with {_CONNECTIONS} connections", *notes],
    )
