"""The policies of bpf/policy.h: by slot, which share of the exchanges at a port becomes spans, and from when on they are slow.

A slot is a number that both ends of an exchange compute alike, from the server's port and the transport. The kernel counts and
decides by it; here are its memory, mapped, and the same decisions for exchanges that the kernel does not pair.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from .sampling import LOW_56_BITS, Sampling
from .scopes import Records

#: as bpf/slot.h has them
POLICIES: Final = 4096
_FACTOR: Final = 40515
_SHIFT: Final = 4
_TRANSPORT: Final = 7
#: enum sampling_class; enum policy_count: each class but the last has two, the faster ones first
REST, SLOW, FAILED = range(3)
CLASSES: Final = 3
CLASS_NAMES: Final = ("rest", "slow", "failed")
COUNTS: Final = 5
COUNTED_FAILED: Final = 4
#: ns; nothing takes longer
NEVER: Final = 1 << 61

Slots = npt.NDArray[np.int64]


class Counted(NamedTuple):
    """Since the start, of n slots. counts: (n, COUNTS), which wrap. durations: (n,), sums in ns."""

    counts: npt.NDArray[np.uint32]
    durations: npt.NDArray[np.uint64]


class Decided(NamedTuple):
    """Of n exchanges which become spans, (n,); how many failed; and how many of the others the sampling left out, and the budget had
    no room for."""

    kept: npt.NDArray[np.bool_]
    failed: int
    sampled_out: int
    beyond: int


def slots_of(ports: npt.NDArray[np.uint16], transports: npt.NDArray[np.uint8]) -> Slots:
    """As policy_slot(). ports: of the servers."""
    product = (ports.astype(np.int64) + (transports.astype(np.int64) << _TRANSPORT)) * _FACTOR
    return (product & 0xFFFF) >> _SHIFT


@dataclass(frozen=True, slots=True)
class Memory:
    """The kernel's: ``policies``, (POLICIES,) of struct policy; ``policy_counts``, (CPUs, POLICIES) of struct policy_counts;
    ``budget_left`` and ``room_shared``, of shape (); ``budget_reserved``, (CLASSES,)."""

    policies: npt.NDArray[Any]
    counts: npt.NDArray[Any]
    budget_left: npt.NDArray[Any]
    budget_reserved: npt.NDArray[Any]
    room_shared: npt.NDArray[Any]


def reserved_of(room_of_all: int) -> npt.NDArray[np.int64]:
    """Of the room of all slots, what each class leaves to those that come before it: failures first, then what is slow."""
    reserved = np.zeros(CLASSES, np.int64)
    reserved[REST], reserved[SLOW] = room_of_all // 4, room_of_all // 8
    return reserved


class Policies:
    """For the drain's thread. role_server: of enum role."""

    def __init__(
        self, memory: Memory, sampling: Sampling, role_server: int, room: int = 0, room_of_all: int = 0
    ) -> None:
        """Before the first setting, room: spans of each class in each slot; room_of_all: of all slots together."""
        self._policies, self._counts = memory.policies, memory.counts
        self._budget_left, self._budget_reserved = memory.budget_left, memory.budget_reserved
        self._room_shared = memory.room_shared
        self._sampling = sampling
        self._role_server = role_server
        self._own_counts = np.zeros((POLICIES, COUNTS), np.uint32)
        self._own_durations = np.zeros(POLICIES, np.uint64)
        self._slow = NEVER if sampling.slow is None else round(sampling.slow * 1e9)
        self._policies["slow"] = self._slow
        self._policies["levels"] = sampling.first_levels
        self._policies["left"] = room
        self._budget_left[...] = room_of_all
        self._budget_reserved[...] = reserved_of(room_of_all)
        self._room_shared[...] = room

    def close(self) -> None:
        """Let go of the kernel's memory. Whoever is still busy with policies has a copy of them."""
        self._policies, self._counts = self._policies.copy(), self._counts.copy()
        self._budget_left, self._budget_reserved = self._budget_left.copy(), self._budget_reserved.copy()
        self._room_shared = self._room_shared.copy()

    def used(self) -> Slots:
        """The slots that an exchange has met."""
        return np.flatnonzero(self._policies["used"])

    def counted(self, slots: Slots) -> tuple[Counted, Counted]:
        """By the kernel, as exchanges end, and here, as they are drained."""
        counts = self._counts[:, slots]
        return (
            Counted(counts["counts"].sum(axis=0, dtype=np.uint32), counts["duration_sum"].sum(axis=0, dtype=np.uint64)),
            Counted(self._own_counts[slots], self._own_durations[slots]),
        )

    def set(
        self,
        slots: Slots,
        levels: npt.NDArray[np.uint8],
        room: npt.NDArray[np.int32],
        slow: npt.NDArray[np.uint64],
        elsewhere: int,
        refill: int,
        of_all: int,
    ) -> None:
        """levels, room: (n, CLASSES) of these slots, room for what is due to them; slow: (n,), ns. elsewhere: room of each class
        in each other slot, and in these beyond that, for which the room of all slots together has to have room, too. refill: what
        that grows by, to ``of_all`` at most."""
        rooms = np.full((POLICIES, CLASSES), elsewhere, np.int32)
        rooms[slots] += room
        self._policies["slow"][slots] = slow
        self._policies["levels"][slots] = levels
        self._policies["left"] = rooms
        self._room_shared[...] = elsewhere
        # Not atomic, as in _take_of_all(): of a load that moves between slots this is what holds it.
        self._budget_left[...] = min(max(0, int(self._budget_left)) + refill, of_all)
        self._budget_reserved[...] = reserved_of(of_all)

    def forget(self, slots: Slots) -> None:
        """These are as those that no exchange has met."""
        self._policies["used"][slots] = 0
        self._policies["slow"][slots] = self._slow
        self._policies["levels"][slots] = self._sampling.first_levels

    def decide(self, records: Records, low_halves: npt.NDArray[np.uint64], errors: npt.NDArray[np.bool_]) -> Decided:
        """As is_kept_by_policy(), of records that the kernel did not pair; writes down by which levels. low_halves: of their trace
        ids. errors: whose answer is an error."""
        has_failed = errors | (records["outcome"] != 0)
        slots, classes = self._classified(records, has_failed)
        levels = self._policies["levels"][slots, classes]
        records["connection"]["sampling"] = levels
        kept: npt.NDArray[np.bool_] = low_halves & LOW_56_BITS >= self._sampling.thresholds[levels]
        failed, sampled_out = int(np.count_nonzero(has_failed)), len(records) - int(np.count_nonzero(kept))
        if not self._sampling.budgeted:
            return Decided(kept, failed, sampled_out, 0)
        beyond = self._beyond(slots, classes, kept)
        kept[beyond] = False
        return Decided(kept, failed, sampled_out, len(beyond))

    def _classified(self, records: Records, has_failed: npt.NDArray[np.bool_]) -> tuple[Slots, npt.NDArray[np.int64]]:
        """The slot and the class of each, which are counted."""
        connection = records["connection"]
        server_side = connection["role"] == self._role_server
        ports = np.where(server_side, connection["local_port"], connection["remote_port"])
        slots = slots_of(ports, connection["transport"])
        since = np.where(server_side & (records["arrived"] != 0), records["arrived"], records["request_start"])
        until = records["response_end"]
        durations = np.where(until > since, until - since, np.uint64(0))
        slow = self._policies["slow"][slots]
        which = (durations > slow >> 1).astype(np.int64) + (durations > slow) + (durations > slow << 1)
        if self._sampling.keep_errors:
            which[has_failed] = COUNTED_FAILED
        np.add.at(self._own_counts, (slots, which), 1)
        np.add.at(self._own_durations, slots, durations)
        self._policies["used"][slots] = 1
        return slots, which >> 1

    def _beyond(
        self, slots: Slots, classes: npt.NDArray[np.int64], kept: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.int64]:
        """Which of those that are kept exceed the room, as has_room() tells; takes what the others need."""
        rows = np.flatnonzero(kept)
        places = slots[rows] * CLASSES + classes[rows]
        order = np.argsort(places, kind="stable")
        found, begins, amounts = np.unique(places[order], return_index=True, return_counts=True)
        ranks = np.arange(len(rows)) - np.repeat(begins, amounts)
        left = self._policies["left"]
        room = np.maximum(left[found // CLASSES, found % CLASSES], 0)
        left[found // CLASSES, found % CLASSES] -= np.minimum(room, amounts).astype(np.int32)
        due = np.maximum(room - int(self._room_shared), 0)
        has_room, is_due = np.empty((2, len(rows)), np.bool_)
        has_room[order], is_due[order] = ranks < np.repeat(room, amounts), ranks < np.repeat(due, amounts)
        taken = [np.flatnonzero(is_due)]
        found_room = np.flatnonzero(has_room & ~is_due)
        for one in (FAILED, SLOW, REST):
            of_class = found_room[classes[rows[found_room]] == one]
            taken.append(of_class[: self._take_of_all(len(of_class), int(self._budget_reserved[one]))])
        beyond: npt.NDArray[np.int64] = np.delete(rows, np.concatenate(taken))
        return beyond

    def _take_of_all(self, wanted: int, least: int) -> int:
        """How many of so many spans the machine has room for, which is taken. least: what is to be left."""
        # Not atomic: what the kernel takes at this very moment may be given out once more, here as in _beyond().
        left = int(self._budget_left)
        taken = min(wanted, max(0, left - least))
        self._budget_left[...] = left - taken
        return taken
