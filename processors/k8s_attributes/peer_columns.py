"""The pod, or the Service, at the other end of each span of a batch, once a distinct pair of addresses.

The address of the other end is in a fragment that many spans share. Whose it is, and since when and until when, is three
arrays beside the table of fragments, taken by index; only spans outside of that time, or of an address that several pods had,
are looked at singly.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from ...pipeline.counters import Counters
from ...pipeline.spans import Fragment, FragmentColumn, FragmentTable, SpanBatch
from .peer_index import FOREVER, Peer, PeerIndex, Peers, peer_at

_ADDRESS: Final = "network.peer.address"
_NOBODY: Final = 0
#: fragments of pods that are kept beside two for each address under way; then there is a new table
PEERS_KEPT: Final = 4_096


class PeerColumns:
    """Belongs to the thread that hands on batches. pods, services: a pod's address counts first."""

    def __init__(self, pods: PeerIndex, services: PeerIndex, counters: Counters, processor: str) -> None:
        self._pods, self._services = pods, services
        self._counters, self._processor = counters, processor
        self._known: WeakKeyDictionary[FragmentTable, _Addresses] = WeakKeyDictionary()
        self._start_anew()

    def of(self, batch: SpanBatch) -> SpanBatch:
        """The batch with a fragment more a span, unless there is nothing to say."""
        if self._pods.stale:
            self._count_unknown(len(batch), "stale")
            return batch
        if len(self._table) > PEERS_KEPT + 2 * sum(len(known.addresses) for known in self._known.values()):
            self._start_anew()
        for column in batch.fragments:
            found = self._addresses_of(column.table)
            if found.has_any:
                ids = self._ids(found, column.ids, batch.start)
                return batch if not ids.any() else _with(batch, FragmentColumn(self._table, ids))
        return batch

    def _start_anew(self) -> None:
        self._table = FragmentTable()
        self._table.intern(Fragment())
        self._known.clear()

    def _addresses_of(self, table: FragmentTable) -> _Addresses:
        known = self._known.get(table)
        if known is None:
            known = self._known[table] = _Addresses()
        version = (self._pods.version, self._services.version, self._services.stale)
        if known.version != version:
            for number, address in enumerate(known.addresses):
                if address is not None and self._at(address) is not known.peers[number]:
                    self._look_up(known, number, address)
            known.version = version
        if len(known.addresses) < len(table):
            self._extend(known, table.fragments[len(known.addresses) :])
        return known

    def _extend(self, known: _Addresses, fragments: list[Fragment]) -> None:
        begin = len(known.addresses)
        known.addresses += [_address_of(fragment) for fragment in fragments]
        known.peers += [()] * len(fragments)
        more = np.zeros(len(fragments), np.int64)
        known.ids = np.concatenate((known.ids, more))
        known.begins = np.concatenate((known.begins, more))
        known.ends = np.concatenate((known.ends, more + FOREVER))
        for number in range(begin, len(known.addresses)):
            address = known.addresses[number]
            if address is not None:
                known.has_any = True
                self._look_up(known, number, address)

    def _at(self, address: str) -> Peers:
        return self._pods.at(address) or (() if self._services.stale else self._services.at(address))

    def _look_up(self, known: _Addresses, number: int, address: str) -> None:
        peers = known.peers[number] = self._at(address)
        if not peers:
            known.ids[number], known.begins[number], known.ends[number] = _NOBODY, 0, FOREVER
        elif len(peers) == 1:
            known.ids[number] = self._table.intern(_fragment(peers[0]))
            known.begins[number], known.ends[number] = peers[0].begin, peers[0].sure
        else:  # no time is that of a single one: each span is looked at
            known.ids[number], known.begins[number], known.ends[number] = _NOBODY, FOREVER, 0

    def _ids(
        self, known: _Addresses, fragments: npt.NDArray[np.int64], start: npt.NDArray[np.uint64]
    ) -> npt.NDArray[np.int64]:
        ids = known.ids[fragments]
        at = start.astype(np.int64)
        outside = (at < known.begins[fragments]) | (at >= known.ends[fragments])
        if outside.any():
            self._look_at_each(known, np.flatnonzero(outside), fragments, at, ids)
        return ids

    def _look_at_each(
        self,
        known: _Addresses,
        rows: npt.NDArray[np.int64],
        fragments: npt.NDArray[np.int64],
        at: npt.NDArray[np.int64],
        ids: npt.NDArray[np.int64],
    ) -> None:
        unknown = 0
        for row, number, moment in zip(rows, fragments[rows].tolist(), at[rows].tolist(), strict=True):
            peers = known.peers[number]
            peer = peer_at(peers, moment)
            ids[row] = _NOBODY if peer is None else self._table.intern(_fragment(peer))
            unknown += peer is None and any(other.covers(moment) for other in peers)
        self._count_unknown(unknown, "ambiguous")

    def _count_unknown(self, spans: int, reason: str) -> None:
        if spans:
            self._counters.add("wirespan.k8s.peers.unknown", spans, processor=self._processor, reason=reason)


@dataclass(slots=True)
class _Addresses:
    """Of each fragment of a table: the address, if it has one, all that had it lately, and of a single one the fragment that
    describes it, since when and until when, Unix ns."""

    addresses: list[str | None] = field(default_factory=list)
    peers: list[Peers] = field(default_factory=list)
    ids: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    begins: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    ends: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    has_any: bool = False
    version: tuple[int, int, bool] = (-1, -1, False)


def _with(batch: SpanBatch, column: FragmentColumn) -> SpanBatch:
    return replace(batch, fragments=(*batch.fragments, column))


def _address_of(fragment: Fragment) -> str | None:
    found = next((value for name, value in fragment.attributes if name == _ADDRESS), None)
    return found if isinstance(found, str) else None


def _fragment(peer: Peer) -> Fragment:
    return Fragment(attributes=tuple(peer.attributes()))
