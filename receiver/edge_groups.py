"""Exchanges that user space pairs (segment mode) as the kernel would have counted them: by edge, column by column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from ..pipeline.spans import Fragment, SpanKind, StatusCode
from .histogram import SLOTS, slots_of
from .kernel.edges import HISTOGRAMS, SUMS
from .process import ImageKey, image_key
from .scopes import Records

_ERROR: Final = "error"
#: error.type of answers that name another server
_REDIRECTIONS: Final = ("MOVED", "ASK")
_LOOPBACK_V6: Final = np.frombuffer(bytes(15) + b"\1", np.uint8)
_LOOPBACK_V4: Final = np.frombuffer(bytes(10) + b"\xff\xff\x7f", np.uint8)


@dataclass(frozen=True, slots=True)
class EdgeNames:
    """What the numbers of ``struct edge`` mean, by field."""

    kinds: dict[int, SpanKind]
    transports: dict[int, str]
    protocols: dict[int, str]
    statuses: dict[int, str]
    outcomes: dict[int, str]
    peers: dict[int, str]
    flags_on_machine: int


class Told(NamedTuple):
    """What a protocol's parser tells of an exchange: names of the protocol and of the status class."""

    protocol: str
    status: str

    @property
    def is_error(self) -> bool:
        """As has_failed() of bpf/sampling.h has it."""
        return self.status == _ERROR


#: kind, server port, transport, protocol, status class, error, peer: as class:`.edges.Series` has them
Rest: TypeAlias = tuple[SpanKind, int, str, str, str, str, str]


@dataclass(frozen=True, slots=True)
class Grouped:
    """groups: program image and the rest. sums: (groups, len(SUMS)). slots: (groups, len(HISTOGRAMS), SLOTS)."""

    groups: list[tuple[ImageKey, Rest]]
    sums: npt.NDArray[np.uint64]
    slots: npt.NDArray[np.uint32]


def told(operation: Fragment) -> Told:
    attributes = dict(operation.attributes)
    error = attributes.get("error.type")
    status = "redirection" if error in _REDIRECTIONS else _ERROR if operation.status is StatusCode.ERROR else "success"
    return Told(str(attributes.get("network.protocol.name", "")), status)


def grouped(records: Records, known: Sequence[Told], names: EdgeNames) -> Grouped:
    """records: exchanges of TCP. known: of each what its parser tells."""
    told_apart = {what: number for number, what in enumerate(dict.fromkeys(known))}
    connection = records["connection"]
    server_side = np.array([names.kinds[role] is SpanKind.SERVER for role in connection["role"].tolist()], np.bool_)
    process = records["process"]
    keys = np.zeros(len(records), [("process", process.dtype), ("port", "<u2"), *_SMALL])
    keys["process"] = process
    keys["port"] = np.where(server_side, connection["local_port"], connection["remote_port"])
    keys["role"], keys["outcome"] = connection["role"], records["outcome"]
    keys["local"] = _is_on_machine(connection, names.flags_on_machine)
    keys["told"] = [told_apart[what] for what in known]
    _, firsts, group = np.unique(keys.view(f"V{keys.dtype.itemsize}"), return_index=True, return_inverse=True)
    what = list(told_apart)
    groups = [(image_key(key["process"]), _rest(key, what[key["told"]], names)) for key in keys[firsts]]
    return Grouped(groups, *_counted(records, server_side, group, len(groups)))


_SMALL: Final = [("role", "u1"), ("outcome", "u1"), ("local", "u1"), ("told", "<u4")]


def _rest(key: np.void, what: Told, names: EdgeNames) -> Rest:
    error = names.outcomes[int(key["outcome"])]
    status = "" if error else what.status
    peer = names.peers[int(key["local"])]
    return names.kinds[int(key["role"])], int(key["port"]), "tcp", what.protocol, status, error, peer


def _is_on_machine(connection: Records, flag: int) -> npt.NDArray[np.bool_]:
    """As peer_class_of() of bpf/edges.h."""
    local, remote = connection["local_address"], connection["remote_address"]
    loopback = (remote == _LOOPBACK_V6).all(axis=1) | (remote[:, :13] == _LOOPBACK_V4).all(axis=1)
    same: npt.NDArray[np.bool_] = (local == remote).all(axis=1)
    local_peer: npt.NDArray[np.bool_] = same | loopback | (connection["flags"] & flag != 0)
    return local_peer


def peer_is_on_machine(connection: Any, flag: int) -> bool:
    """The same of one ``struct connection_info``."""
    local, remote = connection["local_address"].tobytes(), connection["remote_address"].tobytes()
    loopback = remote == _LOOPBACK_V6.tobytes() or remote.startswith(_LOOPBACK_V4.tobytes())
    return loopback or local == remote or bool(connection["flags"] & flag)


def _counted(
    records: Records, server_side: npt.NDArray[np.bool_], group: npt.NDArray[np.int64], count: int
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint32]]:
    """As count_edge() of bpf/edges.h."""
    arrived, start, answered = records["arrived"], records["request_start"], records["response_start"]
    has_arrived = server_side & (arrived != 0)
    duration = _between(np.where(has_arrived, arrived, start), records["response_end"])
    queue, processing = _between(arrived, start), _between(records["request_end"], answered)
    sums = np.zeros((count, len(SUMS)), np.uint64)
    slots = np.zeros((count, len(HISTOGRAMS), SLOTS), np.uint32)
    for column, size in enumerate(("request_size", "response_size")):
        np.add.at(sums[:, column], group, records[size])
    parts = ((duration, None), (queue, has_arrived), (processing, server_side & (answered != 0)))
    for number, (times, applies) in enumerate(parts):
        these = slice(None) if applies is None else applies
        np.add.at(sums[:, 2 + number], group[these], times[these])
        np.add.at(slots[:, number], (group[these], slots_of(times[these])), 1)
    return sums, slots


def _between(since: npt.NDArray[np.uint64], until: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    return np.where(until > since, until - since, np.uint64(0))
