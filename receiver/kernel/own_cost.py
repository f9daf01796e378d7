"""What the programs in the way of every packet take: the time of one run in 1,024, see bpf/own_cost.h."""

from __future__ import annotations

from typing import Final

from ...pipeline.counters import CounterKey
from .programs import Attached

METRIC: Final = "wirespan.hooks.duration"
#: runs that one which was timed stands for: MEASURED_ONE_IN of bpf/timed_runs.h
STANDS_FOR: Final = 1_024


class OwnCost:
    """Of loaded programs."""

    def __init__(self, programs: Attached) -> None:
        self._map = programs.maps["own_costs"]
        self._dtype = programs.btf.dtype("own_cost")
        self._names = {
            number: name.removeprefix("HOOK_").lower()
            for name, number in programs.btf.enum("hook").items()
            if name != "HOOKS"
        }

    def seconds(self) -> dict[CounterKey, float]:
        """An estimate of all time since they were loaded, by program."""
        return {
            (METRIC, (("program", name),)): self._nanoseconds(number) * STANDS_FOR / 1e9
            for number, name in self._names.items()
        }

    def _nanoseconds(self, number: int) -> int:
        per_cpu = self._map.lookup_per_cpu(number.to_bytes(4, "little"), self._dtype)
        return 0 if per_cpu is None else int(per_cpu["ns"].sum())
