"""Whose an address was at a time: of all pods and Services of the cluster as little as that takes.

Addresses are used again, within a second where pods come and go, so each pod has its own for a span of time: from its start
until it ended, or, where it is not known when its containers ended, until it was gone. Since it was marked for deletion, or all
its containers ended, it may be another one's that is not known yet: until more is known that is in doubt. Kubernetes has whole
seconds, and the old pod may be listed when the new one is there already. Where two of them may have had the address, or it is
in doubt, or nothing has been heard of the API server for too long, it is nobody's: no name is better than a wrong one.
Safe from any thread.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from sys import intern
from threading import Lock
from typing import Any, Final

from .pods import WORKLOADS, addresses_of, entries, has_ended, part, service_name_of, text, time_of, workloads_of

#: seconds for which it is known whose an address was, and of how many pods that are gone
ENDED_KEPT_SECONDS: Final = 120.0
ENDED_KEPT: Final = 16_384

#: Unix ns; later than everything
FOREVER: Final = 2**63 - 1
_SECOND: Final = 10**9


class Peer:
    """A pod or a Service at its addresses from ``begin`` until ``end``, Unix ns, for certain until ``sure``."""

    __slots__ = ("addresses", "begin", "end", "name", "namespace", "service", "sure", "uid")

    def __init__(self, item: dict[str, Any], addresses: tuple[str, ...], begin: int, service: str) -> None:
        metadata = part(item, "metadata")
        self.uid = text(metadata, "uid")
        self.name = text(metadata, "name")
        self.namespace = intern(text(metadata, "namespace"))
        self.service = intern(service)
        self.addresses = addresses
        self.begin, self.sure, self.end = begin, _sure_until(item), FOREVER

    def covers(self, at: int) -> bool:
        return self.begin <= at < self.end

    def attributes(self) -> Iterator[tuple[str, str]]:
        """Of a span whose other end it is."""
        yield "service.peer.name", self.service
        yield "peer.service", self.service
        yield "wirespan.peer.k8s.namespace.name", self.namespace


class PodPeer(Peer):
    __slots__ = ("kind", "workload")

    def __init__(self, item: dict[str, Any], addresses: tuple[str, ...], begin: int, well_known: bool) -> None:
        super().__init__(item, addresses, begin, service_name_of(item, well_known))
        workloads = workloads_of(item)
        kind = next((kind for kind in WORKLOADS if kind in workloads), "")
        self.kind, self.workload = kind, intern(workloads[kind].name) if kind else ""

    def attributes(self) -> Iterator[tuple[str, str]]:
        yield from super().attributes()
        yield "wirespan.peer.k8s.pod.name", self.name
        yield "wirespan.peer.k8s.pod.uid", self.uid
        if self.kind:
            yield f"wirespan.peer.k8s.{self.kind}.name", self.workload


class ServicePeer(Peer):
    __slots__ = ()

    def __init__(self, item: dict[str, Any], addresses: tuple[str, ...], begin: int) -> None:
        super().__init__(item, addresses, begin, text(part(item, "metadata"), "name"))

    def attributes(self) -> Iterator[tuple[str, str]]:
        yield from super().attributes()
        yield "wirespan.peer.k8s.service.name", self.name


def addresses_of_service(item: Mapping[str, Any]) -> tuple[str, ...]:
    """Those by which it is reached; a headless one has none."""
    spec = part(item, "spec")
    listed = [spec.get("clusterIP"), *_listed(spec, "clusterIPs"), *_listed(spec, "externalIPs")]
    listed += [entry.get("ip") for entry in entries(part(item, "status", "loadBalancer"), "ingress")]
    return tuple(dict.fromkeys(one for one in listed if isinstance(one, str) and one not in ("", "None")))


def _listed(spec: Mapping[str, Any], key: str) -> list[Any]:
    found = spec.get(key)
    return found if isinstance(found, list) else []


Peers = tuple[Peer, ...]


class PeerIndex:
    """stale_after: seconds without news after which no address is anybody's. make: a peer of an item, its addresses, and since
    when it has these. addresses_of: an item. last_news: when there was some, monotonic s."""

    def __init__(
        self,
        stale_after: float,
        make: Callable[[dict[str, Any], tuple[str, ...], int], Peer],
        addresses_of: Callable[[Mapping[str, Any]], tuple[str, ...]] = addresses_of,
    ) -> None:
        self._stale_after, self._make, self._addresses_of = stale_after, make, addresses_of
        self.last_news: Callable[[], float] = time.monotonic
        self._lock = Lock()  # guards what follows
        self._by_uid: dict[str, Peer] = {}
        self._by_address: dict[str, Peers] = {}
        self._ended: deque[tuple[float, Peer]] = deque()
        self._listed: set[str] = set()
        self.version = 0

    def __len__(self) -> int:
        return len(self._by_uid)

    @classmethod
    def of_pods(cls, stale_after: float, well_known_labels: bool = False) -> PeerIndex:
        return cls(stale_after, lambda item, addresses, begin: PodPeer(item, addresses, begin, well_known_labels))

    @classmethod
    def of_services(cls, stale_after: float) -> PeerIndex:
        return cls(stale_after, ServicePeer, addresses_of_service)

    @property
    def stale(self) -> bool:
        return time.monotonic() - self.last_news() > self._stale_after

    def listing(self) -> None:
        self._listed = set()

    def put(self, item: dict[str, Any]) -> None:
        uid = text(part(item, "metadata"), "uid")
        addresses = self._addresses_of(item)
        with self._lock:
            self._listed.add(uid)
            before = self._by_uid.get(uid)
            if before is not None and before.addresses == addresses:
                self._doubt(before, _sure_until(item))
            else:
                if before is not None:
                    self._end(before, item, _end_of(item) if has_ended(item) else time.time_ns())
                if addresses:
                    begin = _begin_of(item) if before is None else time.time_ns()
                    self._add(self._make(item, addresses, begin))
            self._forget()

    def remove(self, item: dict[str, Any]) -> None:
        with self._lock:
            peer = self._by_uid.get(text(part(item, "metadata"), "uid"))
            if peer is not None:
                self._end(peer, item, _end_of(item))
            self._forget()

    def listed(self, unknown_seconds: float) -> None:
        """Nobody knows when in the time without news a pod went that is not listed."""
        end = time.time_ns() - int(unknown_seconds * _SECOND)
        with self._lock:
            for uid in self._by_uid.keys() - self._listed:
                self._end(self._by_uid[uid], {}, end)
            self._listed = set()
            self._forget()

    def at(self, address: str) -> Peers:
        """All that had this address lately; the same tuple for as long as nothing has changed about them."""
        return self._by_address.get(address, ())

    def _add(self, peer: Peer) -> None:
        self._by_uid[peer.uid] = peer
        for address in peer.addresses:
            self._by_address[address] = (*self._by_address.get(address, ()), peer)
        self.version += 1

    def _doubt(self, peer: Peer, sure: int) -> None:
        if peer.sure != sure:
            peer.sure = sure
            self._renew(peer)

    def _end(self, peer: Peer, item: dict[str, Any], end: int) -> None:
        """item: what was said of it last; empty if nothing was."""
        peer.end = max(end, peer.begin)
        peer.sure = min(_sure_until(item) if item else peer.sure, peer.end)
        del self._by_uid[peer.uid]
        self._ended.append((time.monotonic() + ENDED_KEPT_SECONDS, peer))
        self._renew(peer)

    def _renew(self, peer: Peer) -> None:
        for address in peer.addresses:  # another tuple says that something has changed
            self._by_address[address] = (*self._by_address[address],)
        self.version += 1

    def _forget(self) -> None:
        now = time.monotonic()
        while self._ended and (self._ended[0][0] <= now or len(self._ended) > ENDED_KEPT):
            _, peer = self._ended.popleft()
            for address in peer.addresses:
                left = tuple(other for other in self._by_address[address] if other is not peer)
                if left:
                    self._by_address[address] = left
                else:
                    del self._by_address[address]
            self.version += 1


def peer_at(peers: Peers, at: int) -> Peer | None:
    """Who had the address at this time, Unix ns; None if that may be several, or is not certain, or nobody had."""
    found = [peer for peer in peers if peer.covers(at)]
    return found[0] if len(found) == 1 and at < found[0].sure else None


def _begin_of(item: dict[str, Any]) -> int:
    started = time_of(text(part(item, "status"), "startTime"))
    created = time_of(text(part(item, "metadata"), "creationTimestamp"))
    return started if started is not None else created if created is not None else time.time_ns()


def _end_of(item: dict[str, Any]) -> int:
    """When the last container ended, if all have and it is said; the whole second counts. Else now."""
    finished, now = _finished(item), time.time_ns()
    return now if finished is None else min(now, finished + _SECOND)


def _sure_until(item: dict[str, Any]) -> int:
    """Until when the address is this pod's for certain, by what is known now."""
    finished = _finished(item)
    if finished is not None:
        return finished
    metadata = part(item, "metadata")
    forced, grace = time_of(text(metadata, "deletionTimestamp")), metadata.get("deletionGracePeriodSeconds")
    if forced is None:
        return FOREVER
    return forced - (grace * _SECOND if isinstance(grace, int) else 0)


def _finished(item: dict[str, Any]) -> int | None:
    """When the last container ended; None if one runs, or does not say."""
    status = part(item, "status")
    containers = [*entries(status, "containerStatuses"), *entries(status, "ephemeralContainerStatuses")]
    finished = [time_of(text(part(container, "state", "terminated"), "finishedAt")) for container in containers]
    known = [at for at in finished if at is not None]
    return max(known) if known and len(known) == len(finished) else None
