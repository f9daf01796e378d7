"""What the kernel counts of edges, in bpf/edges.h and bpf/tcp_health.h: read as numbers, summed over the CPUs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from .maps import Map
from .programs import Attached

#: fields of ``struct edge_counts`` that are sums, and those that are histograms
SUMS: Final = ("request_bytes", "response_bytes", "duration_sum", "queue_sum", "processing_sum", "dropped")
HISTOGRAMS: Final = ("duration", "queue", "processing")


class Counted(NamedTuple):
    """The fields of a struct of counts that are sums, and those that are histograms."""

    sums: tuple[str, ...]
    histograms: tuple[str, ...]


EXCHANGES: Final = Counted(SUMS, HISTOGRAMS)
#: of ``struct tcp_counts``
TCP: Final = Counted(
    (
        *("connects", "failures", "retransmits", "resets_sent", "resets_received", "accept_drops"),
        *("window_waits", "connect_sum", "srtt_sum", "min_rtt_sum"),
    ),
    ("connect", "srtt", "min_rtt"),
)

#: part of the memory for metrics that the health of connections gets; their edges are fewer than those of exchanges
TCP_SHARE: Final = 1 / 8

#: bytes of the kernel's struct htab_elem and of the bucket that it hangs in (Linux 6.18)
_EDGE_OVERHEAD: Final = 64
#: bytes of counts that are read at once
_ROOM: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class EdgeCounts:
    """comms: (n, 16) bytes. sums: (n, sums), times in ns. slots: (n, histograms, slots), which wrap at 2^32."""

    comms: npt.NDArray[np.uint8]
    sums: npt.NDArray[np.uint64]
    slots: npt.NDArray[np.uint32]


class EdgeMap:
    """A map of a loaded object by ``struct edge``. For one thread."""

    counted: Counted = EXCHANGES

    def __init__(self, programs: Attached, edges: str = "edges", prefix: str = "edge") -> None:
        self._map, self._rest = programs.maps[edges], programs.maps[f"{prefix}_scratch"]
        self.key_dtype, self._counts = programs.btf.dtype("edge"), programs.btf.dtype(f"{prefix}_counts")
        first = programs.btf.enum(f"{prefix}_scratch_index")[f"{prefix.upper()}_OVERFLOW"]
        self._overflows = range(first, self._rest.max_entries)

    @property
    def capacity(self) -> int:
        """How many edges there can be."""
        return self._map.max_entries

    def parts(self) -> Iterator[tuple[npt.NDArray[np.uint8], EdgeCounts]]:
        """All edges, a part at a time: their keys, (n, key_size) bytes, and counts."""
        for keys, values in self._map.items_per_cpu(self._counts, _ROOM):
            yield keys, self._summed(values)

    def take(self, key: bytes) -> EdgeCounts | None:
        """The last counts of an edge, which is removed; None if there is none."""
        values = self._map.take_per_cpu(key, self._counts)
        return None if values is None else self._summed(values[None])

    def overflow(self) -> EdgeCounts:
        """The counts of the exchanges for whose edges there was no room; n is 1."""
        found = [self._rest.lookup_per_cpu(index.to_bytes(4, "little"), self._counts) for index in self._overflows]
        return self._summed(np.concatenate([values for values in found if values is not None])[None])

    def _summed(self, values: npt.NDArray[Any]) -> EdgeCounts:
        """values: (n, CPUs) of the struct of counts."""
        sums, histograms = self.counted
        return EdgeCounts(
            comms=values["comm"].max(axis=1),  # one CPU's has it
            sums=np.stack([values[name].sum(axis=1) for name in sums], axis=1),
            slots=np.stack([values[name]["slots"].sum(axis=1, dtype=np.uint32) for name in histograms], axis=1),
        )


class TcpMap(EdgeMap):
    """How well the connections of edges do, and how many there are. For one thread."""

    counted = TCP

    def __init__(self, programs: Attached) -> None:
        super().__init__(programs, "tcp_edges", "tcp")
        self._programs = programs
        self._open = programs.btf.dtype("open_connection")

    def open_connections(self) -> npt.NDArray[Any] | None:
        """``struct open_connection``: a connection once for each process that has a file of it; None if that cannot be had.
        Adds what listening sockets have dropped to the counts."""
        if not self._programs.available("list_connections"):
            return None
        return np.frombuffer(self._programs.iterate("list_connections"), self._open)


def edges_within(memory: int, edges: Map) -> int:
    """How many edges fit into so many bytes of the kernel: each has a key, its place in the table, and counts, as a rule per CPU."""
    an_edge = edges.key_size + _EDGE_OVERHEAD + edges.copies * ((edges.value_size + 7) // 8 * 8)
    return max(1, memory // an_edge)
