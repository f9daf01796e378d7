"""Pods by what identifies them: their uid, their containers' ids, and whatever ``pod_association`` says.

A pod that is gone is found by its uid and its containers for two more minutes, for what was held back on the way: neither
ever names another pod. By its address it is not found any more. Safe from any thread.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from threading import Lock
from typing import Any, Final, NamedTuple

from .pods import Container, Pod, PodReader

#: seconds for which a pod that is gone is still known, and how many are
GONE_KEPT_SECONDS: Final = 120.0
GONE_KEPT: Final = 4_096

_UID: Final = "k8s.pod.uid"
_CONTAINER: Final = "container.id"
#: stands for the address of who sent a resource; no attribute is called so
CONNECTION: Final = "(connection)"
_ADDRESSES: Final = frozenset(("k8s.pod.ip", "ip", CONNECTION))
#: what says for certain which pod a resource is of, whatever is configured, and then what other senders may say
_ALWAYS: Final = ((_UID,), (_CONTAINER,))
_DEFAULT: Final = (("k8s.pod.ip",), ("k8s.pod.name", "k8s.namespace.name"), (CONNECTION,))


class Match(NamedTuple):
    """container: None if it is not known which one it is."""

    pod: Pod
    container: Container | None


class PodTable:
    """associations: each the names of the attributes that together identify a pod. excluded: whether a pod of that name is
    to be ignored."""

    def __init__(
        self,
        reader: PodReader,
        associations: Sequence[tuple[str, ...]] = (),
        excluded: Callable[[str], bool] = lambda name: False,
    ) -> None:
        self._reader, self._excluded = reader, excluded
        self._associations = tuple(dict.fromkeys((*_ALWAYS, *(associations or _DEFAULT))))
        self._lock = Lock()  # guards what follows
        self._pods: dict[str, Pod] = {}
        self._indices: list[dict[tuple[str, ...], Pod]] = [{} for _ in self._associations]
        self._gone: deque[tuple[float, str]] = deque()
        self._listed: set[str] = set()
        self.version = 0

    @property
    def looks_at_senders(self) -> bool:
        return any(CONNECTION in association for association in self._associations)

    def __len__(self) -> int:
        return len(self._pods)

    def listing(self) -> None:
        self._listed = set()

    def put(self, item: dict[str, Any]) -> None:
        pod = self._reader.pod(item)
        if pod is None or self._excluded(pod.name):
            return
        with self._lock:
            self._listed.add(pod.uids[0])
            self._put(pod)
            self._forget()

    def remove(self, item: dict[str, Any]) -> None:
        pod = self._reader.pod(item)
        if pod is not None:
            with self._lock:
                self._leave(pod.uids[0])

    def listed(self, unknown_seconds: float) -> None:
        with self._lock:
            leaving = {uid for _, uid in self._gone}
            for uid in self._pods.keys() - self._listed - leaving:
                self._leave(uid)
            self._listed = set()
            self._forget()

    def find(self, attributes: Mapping[str, Any], sender: str = "", by_address: bool = True) -> Match | None:
        """The pod that these attributes of a resource name, or who sent it. by_address: whether an address may."""
        with self._lock:
            for association, index in zip(self._associations, self._indices, strict=True):
                if not by_address and not _ADDRESSES.isdisjoint(association):
                    continue
                key = tuple(sender if name == CONNECTION else attributes.get(name) for name in association)
                pod = index.get(key) if all(isinstance(value, str) for value in key) else None  # type: ignore[arg-type]
                if pod is not None:
                    return Match(pod, _container(pod, attributes))
        return None

    def _put(self, pod: Pod) -> None:
        uid = pod.uids[0]
        before = self._pods.get(uid)
        if before == pod:
            return
        if before is not None:
            self._drop(before)
        self._pods[uid] = pod
        for association, index in zip(self._associations, self._indices, strict=True):
            for key in _keys(pod, association):
                index[key] = pod
        self.version += 1

    def _leave(self, uid: str) -> None:
        """Of a pod that is gone only what names no other one is kept, for a while."""
        pod = self._pods.get(uid)
        if pod is None:
            return
        for association, index in zip(self._associations, self._indices, strict=True):
            if not _ADDRESSES.isdisjoint(association):
                _take_out(index, pod, association)
        self._gone.append((time.monotonic() + GONE_KEPT_SECONDS, uid))
        self.version += 1
        self._forget()

    def _forget(self) -> None:
        now = time.monotonic()
        while self._gone and (self._gone[0][0] <= now or len(self._gone) > GONE_KEPT):
            _, uid = self._gone.popleft()
            pod = self._pods.pop(uid, None)
            if pod is not None:
                self._drop(pod)
                self.version += 1

    def _drop(self, pod: Pod) -> None:
        for association, index in zip(self._associations, self._indices, strict=True):
            _take_out(index, pod, association)


def _take_out(index: dict[tuple[str, ...], Pod], pod: Pod, association: tuple[str, ...]) -> None:
    for key in _keys(pod, association):
        if index.get(key) is pod:  # another pod may have the address, or the name, by now
            del index[key]


def _keys(pod: Pod, association: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    return product(*(_identities(pod, name) for name in association))


def _identities(pod: Pod, name: str) -> tuple[str, ...]:
    """All values of an attribute that can say that something is of this pod."""
    if name == _UID:
        return pod.uids
    if name == _CONTAINER:
        return tuple(id_ for container in pod.containers for id_ in container.ids)
    if name in _ADDRESSES:
        return pod.addresses
    if name == "k8s.pod.name":
        return (pod.name,)
    if name == "k8s.namespace.name":
        return (pod.namespace,)
    value = pod.attributes.get(name)
    return (value,) if isinstance(value, str) else ()


def _container(pod: Pod, attributes: Mapping[str, Any]) -> Container | None:
    id_, name = attributes.get(_CONTAINER), attributes.get("k8s.container.name")
    for container in pod.containers:
        if id_ in container.ids or (id_ is None and name == container.name):
            return container
    return pod.only
