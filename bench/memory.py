"""Memory of the agent in a steady state: its proportional set size (PSS) less the rings, under load.

The default configuration exports by ``otlp_grpc`` to a server that only acknowledges, while redis-benchmark runs at
full speed on 50 connections. The rings are memory of the kernel that the agent maps, of a size that the user chooses
(``receivers.ebpf.rings``). What the agent maps together with other processes counts in part, so the C library counts
less than it would alone; the resident size, which counts all of it, is quoted too.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

from bench.figures import Figure, Plan, Target
from bench.redis_load import redis_load
from bench.surroundings import Ledger, agent, cores, discarding_server, otlp_grpc, pinned
from support.processes import Process
from wirespan.receiver.ebpf import EbpfConfig

_MAPPING = re.compile(r"^[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \S+ *(?P<name>.*)$")
_RING = "anon_inode:bpf-map"
_SAMPLES = 5


def measure(plan: Plan) -> list[Figure]:
    ledger = Ledger()
    sizes, resident = list[float](), list[float]()
    seconds = 10 if plan.quick else 30
    with (
        redis_load(plan.folder) as load,
        discarding_server(plan.folder) as sink,
        agent(otlp_grpc(sink), plan.folder, ledger) as watching,
        pinned(cores().load),
        Process("redis-benchmark", load.endless(), plan.folder),
    ):
        time.sleep(seconds)
        for number in range(_SAMPLES):
            sizes.append(megabytes(watching.pid, "Pss"))
            resident.append(megabytes(watching.pid, "Rss"))
            plan.say(f"{number + 1}/{_SAMPLES}  {sizes[-1]:.1f} MB, resident {resident[-1]:.1f} MB")
            time.sleep(1)
    rings = EbpfConfig().rings
    total = (rings.exchanges + rings.long_exchanges + rings.segments) / 2**20
    return [
        Figure(
            "memory of the agent, PSS less the rings",
            Target.AT_MOST,
            85,
            "MB",
            sizes,
            notes=[
                f"after {seconds} s of load; resident, less the rings, {max(resident):.0f} MB",
                f"rings of {total:.0f} MiB in all, each mapped twice; otlp_grpc with its defaults; {ledger}",
            ],
        )
    ]


def megabytes(pid: int, measure: str) -> float:
    """Pss or Rss of a process in units of 10^6 bytes, without the rings that it maps."""
    return without_rings(Path(f"/proc/{pid}/smaps").read_text(), measure) * 1024 / 1e6


def without_rings(smaps: str, measure: str) -> int:
    """The sum of a measure over the mappings that are no ring, in KiB, of the text of an smaps file (proc(5))."""
    total, is_ring = 0, False
    for line in smaps.splitlines():
        mapping = _MAPPING.match(line)
        if mapping:
            is_ring = mapping["name"] == _RING
        elif line.startswith(f"{measure}:") and not is_ring:
            total += int(line.split()[1])
    return total
