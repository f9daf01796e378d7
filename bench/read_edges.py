"""How long it takes to read the kernel's counts of 10,000 edges, and to add what is new in them to their series.

The counts are written into the map of the programs, of which none is attached; each round changes all of them.
"""

from __future__ import annotations

import errno
import time

import numpy as np
import numpy.typing as npt

from bench.figures import Figure, Plan, Target
from wirespan.receiver.ebpf import EbpfConfig
from wirespan.receiver.edges import EdgeAccounts
from wirespan.receiver.kernel.edges import EdgeMap, edges_within
from wirespan.receiver.kernel.library import BpfError
from wirespan.receiver.kernel.maps import Map
from wirespan.receiver.kernel.programs import Attached, load
from wirespan.receiver.kernel.session import edge_names_of, object_path

_EDGES = 10_000
#: ports, each a service's, of which the edges are instances
_SERVICES = 200


def measure(plan: Plan) -> list[Figure]:
    memory = EbpfConfig().metrics.max_memory
    with load(object_path(), (), map_sizes={"edges": _EDGES}) as programs:
        room = edges_within(memory, programs.maps["edges"])
        milliseconds, accounts = _read(plan, programs)
        copies = programs.maps["edges"].copies
    counted = sum(int(one.slots[0].sum()) for one in accounts.series())
    expected = _EDGES * copies * (plan.rounds + 1)
    return [
        Figure(
            f"reading {_EDGES:,} edges",
            Target.AT_MOST,
            100,
            "ms",
            milliseconds,
            flaw="" if counted == expected else f"{counted:,} exchanges were counted of {expected:,}",
            notes=[f"{copies} possible CPUs, {_SERVICES} series; {memory >> 20} MiB have room for {room:,} edges here"],
        )
    ]


def _read(plan: Plan, programs: Attached) -> tuple[list[float], EdgeAccounts]:
    edges, kernel = EdgeMap(programs), programs.maps["edges"]
    accounts = EdgeAccounts(edges, edge_names_of(programs.btf), lambda image: (), 0)
    keys, milliseconds = _keys(programs), list[float]()
    for number in range(plan.rounds + 1):
        _write(kernel, keys, programs.btf.dtype("edge_counts"), number + 1)
        begin = time.monotonic()
        accounts.look(number)
        taken = 1000 * (time.monotonic() - begin)
        if number:  # at the first look all edges are new
            milliseconds.append(taken)
            plan.say(f"{number}/{plan.rounds}  {taken:.0f} ms")
    return milliseconds, accounts


def _keys(programs: Attached) -> list[bytes]:
    btf = programs.btf
    keys = np.zeros(_EDGES, btf.dtype("edge"))
    keys["process"]["tgid"] = np.arange(_EDGES) + 1
    keys["server_port"] = np.arange(_EDGES) % _SERVICES + 1
    keys["role"], keys["transport"] = btf.enum("role")["ROLE_SERVER"], 6
    return [key.tobytes() for key in keys]


def _write(kernel: Map, keys: list[bytes], counts: np.dtype[np.void], exchanges: int) -> None:
    """So many exchanges in one bucket of each edge and CPU."""
    values: npt.NDArray[np.void] = np.zeros(kernel.copies, counts)
    values["duration"]["slots"][:, 10] = exchanges
    values["duration_sum"] = exchanges * 1_000_000
    for key in keys:
        _update(kernel, key, values.tobytes())


def _update(kernel: Map, key: bytes, value: bytes) -> None:
    """The kernel prepares memory for a few entries at a time, in the background."""
    while True:
        try:
            return kernel.update(key, value)
        except BpfError as error:
            if error.errno != errno.ENOMEM:
                raise
            time.sleep(0.001)
