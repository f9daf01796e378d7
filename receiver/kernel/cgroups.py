"""What control groups cost the agent, and which are not watched: the map of bpf/cgroups.h."""

from __future__ import annotations

from threading import Lock
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ...pipeline.counters import CounterKey
from ..process import ImageKey, image_key
from .programs import Attached

#: names that I/Os are counted by; those of more groups together
NAMES_KEPT: Final = 256
OTHERS: Final = "others"
METRIC: Final = "wirespan.cgroups.passed_over"
#: fields of the enum, in its order
COSTS: Final = ("record", "segment", "visit")
_ROOM: Final = 1 << 20


class Use(NamedTuple):
    """process: one of the group. costs: how many of each of COSTS."""

    process: ImageKey
    costs: npt.NDArray[np.uint64]


class Unwatched(NamedTuple):
    """A group that is not watched. passed_over: I/Os since then."""

    process: ImageKey
    passed_over: int


class Cgroups:
    """By the id of a group. Counts may be read in any thread."""

    def __init__(self, programs: Attached) -> None:
        self._programs = programs
        self._map = programs.maps["cgroup_uses"]
        self._dtype = programs.btf.dtype("cgroup_use")
        self._lock = Lock()
        self._unwatched: dict[int, str] = {}
        self._passed_over: dict[str, int] = {}  # by name, of the times that have ended

    def count(self, whether: bool) -> None:
        """Whether it is counted what each group costs."""
        self._programs.object.set_variable("cgroups_counted", whether)

    def uses(self) -> dict[int, Use]:
        """Since it is counted; of those that are watched."""
        found = {}
        for keys, values in self._map.items_per_cpu(self._dtype, _ROOM):
            for key, value in zip(keys, values[:, 0], strict=True):
                if not value["unwatched"]:
                    found[int.from_bytes(key.tobytes(), "little")] = Use(
                        image_key(value["process"]), value["costs"].copy()
                    )
        return found

    def forget(self, groups: list[int]) -> None:
        """What these have cost."""
        for group in groups:
            self._map.delete(_key(group))

    def unwatch(self, group: int, name: str) -> None:
        """From now on. name: what its I/Os are counted by."""
        value = self._value(group)
        value["unwatched"], value["passed_over"] = 1, 0
        with self._lock:
            self._map.update(_key(group), value.tobytes())
            self._unwatched[group] = name if len(self._passed_over) < NAMES_KEPT else OTHERS
            self._passed_over.setdefault(self._unwatched[group], 0)
            self._tell()

    def watch(self, group: int) -> None:
        """Again. Its connections are looked at by who joins existing ones."""
        with self._lock:
            name = self._unwatched.pop(group)
            self._passed_over[name] += int(self._value(group)["passed_over"])
            self._map.delete(_key(group))
            self._tell()

    def unwatched(self) -> dict[int, Unwatched]:
        with self._lock:
            values = {group: self._value(group) for group in self._unwatched}
        return {
            group: Unwatched(image_key(value["process"]), int(value["passed_over"])) for group, value in values.items()
        }

    def counts(self) -> dict[CounterKey, int]:
        """I/Os that were passed over, by the names of their groups."""
        with self._lock:
            counts = dict(self._passed_over)
            for group, name in self._unwatched.items():
                counts[name] += int(self._value(group)["passed_over"])
        return {(METRIC, (("cgroup", name),)): count for name, count in counts.items()}

    def _tell(self) -> None:
        self._programs.object.set_variable("cgroups_unwatched", len(self._unwatched))

    def _value(self, group: int) -> Any:
        found = self._map.lookup(_key(group))
        value = np.zeros((), self._dtype)
        return value if found is None else np.frombuffer(found, self._dtype)[0].copy()


def _key(group: int) -> bytes:
    return group.to_bytes(8, "little")
