"""Selection by process: which exchanges leave, by the process at their end of the connection.

The verdict on a program image is found once, by what /proc says of it, and is final for correctness: every record passes
here. Images that are left out are told to the kernel (bpf/selection.h), so that their later exchanges cost no room in the
rings. Both are bounded; what is forgotten is found anew.

A process may be moved to another control group at any time, and nobody says so: where cgroups select, verdicts hold for
``CGROUPS_HOLD`` seconds.

What cannot be looked up because it has ended is left out if the verdict would depend on that: what nobody can tell to be
selected does not leave.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from enum import IntEnum
from fnmatch import translate
from typing import Any, Final, Protocol, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from ..native.key_table import Keys, KeyTable
from ..pipeline.counters import Counters
from .exchanges import Abi
from .process import ImageKey, ProcessTable, image_key
from .resource.procfs import ProcessImage
from .scopes import Records
from .selection import Select, Selectors

T = TypeVar("T")

#: images whose verdict is kept, in each of two generations; and those of them that the kernel was told, at most
VERDICTS_KEPT: Final = 4_096
#: seconds
CGROUPS_HOLD: Final = 10.0

#: struct image of bpf/selection.h: how struct process_info begins
_IMAGE_SIZE: Final = 16


class Verdict(IntEnum):
    LEFT_OUT = 0
    SELECTED = 1
    UNRESOLVED = 2


class LeftOut(Protocol):
    """The set of images that the kernel leaves out, each as :data:`_IMAGE_SIZE` bytes."""

    def add(self, image: bytes) -> None: ...

    def discard(self, image: bytes) -> None: ...


Match: TypeAlias = Callable[[str], object]


class Matcher:
    """One of the two sides of ``select``: what it says of a program image."""

    def __init__(self, selectors: Selectors) -> None:
        self._executable = _any_of(selectors.executables)
        self._service = _any_of(selectors.services)
        self._cgroup = _any_of([glob.rstrip("/") or "/" for glob in selectors.cgroups])

    def found(self, image: ProcessImage, service: str) -> list[bool]:
        """Of each key that is given whether one of its entries matches."""
        found = []
        if self._executable:
            found.append(self._executable(image.executable or "") is not None)
        if self._service:
            found.append(self._service(service) is not None)
        if self._cgroup:
            found.append(any(_is_in_group(self._cgroup, line) for line in image.cgroup.splitlines()))
        return found


def _any_of(globs: Sequence[str]) -> Match | None:
    """What matches a text that one of the globs matches as a whole; ``*`` matches any text, slashes too."""
    return re.compile("|".join(translate(glob) for glob in globs)).match if globs else None


def _is_in_group(match: Match, line: str) -> bool:
    """Of a line ``hierarchy:controllers:path`` (proc_pid_cgroup(5)): whether that group, or one around it, matches."""
    path = line.split(":", 2)[-1]
    while path:
        if match(path) is not None:
            return True
        path = path.rpartition("/")[0]
    return match("/") is not None


class ProcessRules:
    """``select`` for processes."""

    def __init__(self, select: Select) -> None:
        sides = (select, select.exclude)
        self._pids, self._excluded_pids = (frozenset(side.pids) for side in sides)
        self._include, self._exclude = map(Matcher, sides)
        self.by_service = any(side.services for side in sides)
        self.by_cgroup = any(side.cgroups for side in sides)
        self.by_image = self.by_service or self.by_cgroup or any(side.executables for side in sides)
        #: whether there are any
        self.exist = self.by_image or any(side.pids for side in sides)

    def selects_pid(self, pid: int) -> bool:
        return (not self._pids or pid in self._pids) and pid not in self._excluded_pids

    def selects_image(self, image: ProcessImage, service: str) -> bool:
        return all(self._include.found(image, service)) and not any(self._exclude.found(image, service))


class ProcessSelection:
    """Takes what is left out from the rows of a drain. Belongs to the drain's thread.

    Rows have the fields ``exchange`` and ``requester``, see bpf/record.h. left_out: the kernel's list. Counts
    ``wirespan.exchanges.excluded{reason}``.
    """

    def __init__(
        self, rules: ProcessRules, processes: ProcessTable, left_out: LeftOut, abi: Abi, counters: Counters
    ) -> None:
        self._rules = rules
        self._processes = processes
        self._left_out = left_out
        self._abi = abi
        self._counters = counters
        self._verdicts = KeyTable(VERDICTS_KEPT)
        self._told: OrderedDict[bytes, None] = OrderedDict()
        self._provisional = False
        self._forget_at = time.monotonic() + CGROUPS_HOLD
        self._multipliers = np.random.default_rng().integers(0, 2**63, 4, np.uint64) * np.uint64(2) + np.uint64(1)

    def of_rows(self, rows: Records) -> tuple[Records, npt.NDArray[np.bool_]]:
        """The exchanges that are selected, and which rows they are. A span of theirs names a parent only if that is
        selected too."""
        exchanges = rows["exchange"]
        verdicts = self._of_processes(exchanges["process"])
        keep = verdicts == Verdict.SELECTED
        observed = (exchanges["flags"] & self._abi.flag_peer_observed) != 0
        asking = keep & observed & (exchanges["connection"]["role"] == self._abi.role_server)
        alone = np.zeros(len(rows), np.bool_)
        if asking.any():
            alone[asking] = self._of_processes(rows["requester"][asking]) != Verdict.SELECTED
        if keep.all() and not alone.any():
            self._count(verdicts)
            return exchanges, keep
        # As opaque bytes: numpy copies structs with padding field by field.
        opaque = rows.view(np.dtype(("V", rows.dtype.itemsize)))
        kept: Records = opaque[keep].view(rows.dtype)["exchange"]
        kept["flags"][alone[keep]] &= ~np.uint8(self._abi.flag_peer_observed)
        self._count(verdicts)  # last: what fails on the way is lost as a whole
        return kept, keep

    def _count(self, verdicts: npt.NDArray[np.int64]) -> None:
        for verdict, reason in ((Verdict.LEFT_OUT, "new"), (Verdict.UNRESOLVED, "unresolved")):
            count = int((verdicts == verdict).sum())
            if count:
                self._counters.add("wirespan.exchanges.excluded", count, reason=reason)

    def _of_processes(self, processes: Records) -> npt.NDArray[np.int64]:
        return self._verdicts.recall(self._keys(processes), lambda row: self._verdict(processes[row]))

    def _keys(self, processes: Records) -> Keys:
        """Hashes of the images: multilinear, by odd numbers that nobody knows."""
        words = np.frombuffer(np.ascontiguousarray(processes).tobytes(), np.uint64).reshape(len(processes), -1)
        keys: Keys = (words * self._multipliers).sum(axis=1, dtype=np.uint64)
        return keys

    def _verdict(self, process: Any) -> Verdict:
        image = image_key(process)
        if not image.tgid:
            return Verdict.UNRESOLVED
        verdict = self._decide(image)
        if verdict is Verdict.LEFT_OUT:
            self._tell(process.tobytes()[:_IMAGE_SIZE])
        return verdict

    def _decide(self, key: ImageKey) -> Verdict:
        if not self._rules.selects_pid(key.tgid):
            return Verdict.LEFT_OUT
        if not self._rules.by_image:
            return Verdict.SELECTED
        try:
            image = self._processes.image(key)
        except OSError:
            self._provisional = True
            return Verdict.UNRESOLVED
        if image is None:
            return Verdict.UNRESOLVED
        service = str(self._processes.resource(*key)["service.name"]) if self._rules.by_service else ""
        return Verdict.SELECTED if self._rules.selects_image(image, service) else Verdict.LEFT_OUT

    def _tell(self, image: bytes) -> None:
        if len(self._told) >= VERDICTS_KEPT:
            self._left_out.discard(self._told.popitem(last=False)[0])
        self._told[image] = None
        self._left_out.add(image)

    def forget(self) -> None:
        """What may not hold any more: after an error of the system at once, of control groups from time to time. For every
        drain, also where nothing comes up because the kernel leaves all out."""
        if self._provisional:
            self._verdicts.clear()
            self._provisional = False
        if self._rules.by_cgroup and time.monotonic() >= self._forget_at:
            self._verdicts.clear()
            while self._told:
                self._left_out.discard(self._told.popitem()[0])
            self._forget_at = time.monotonic() + CGROUPS_HOLD


def selected_of(summaries: Sequence[T], keep: npt.NDArray[np.bool_]) -> list[T]:
    """Those of the rows that are kept."""
    return [summary for summary, kept in zip(summaries, keep.tolist(), strict=True) if kept]
