"""Which control group costs the agent most, and is not watched any more when it takes more CPU than it may.

The kernel counts what it hands up of each group, and at how many of its connections it looks; what one of these takes is known
about. A group whose part is small stays: without it the agent would take hardly less.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

import numpy as np

from .kernel.cgroups import Use
from .process import ImageKey, ProcessTable

#: seconds of CPU for each of kernel.cgroups.COSTS, about: see docs/performance.md
SECONDS: Final = np.array([5e-6, 10e-6, 0.5e-6])
#: groups that are not watched, at most
UNWATCHED_AT_MOST: Final = 64
#: seconds; what was counted for longer says little about now
_OUTDATED: Final = 30.0
#: of the hierarchy of cgroup v2, which holds whoever is in no group
_ROOT: Final = 1
_V2: Final = "0::"


class Group(NamedTuple):
    """A control group. path: in the hierarchy of cgroup v2. service: of one of its processes. cores: what it took, about."""

    id: int
    path: str
    service: str
    cores: float


class Kernel(Protocol):
    """See :class:`.kernel.cgroups.Cgroups`."""

    def count(self, whether: bool) -> None: ...
    def uses(self) -> dict[int, Use]: ...
    def forget(self, groups: list[int]) -> None: ...
    def unwatch(self, group: int, name: str) -> None: ...
    def watch(self, group: int) -> None: ...


class CgroupCosts:
    """rejoin: takes up the connections of a group that is watched again. name: path and service of a group with this process."""

    def __init__(
        self,
        kernel: Kernel,
        rejoin: Callable[[int], object],
        name: Callable[[int, ImageKey], tuple[str, str]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kernel, self._rejoin, self._name, self._clock = kernel, rejoin, name, clock
        self._since: float | None = None
        self._unwatched = 0

    def are_known(self) -> bool:
        """Whether it was counted lately what each group costs; if not, it is from now on."""
        if self._since is not None and self._clock() - self._since < _OUTDATED:
            return True
        self._begin()
        return False

    def forget(self) -> None:
        """Nobody wants to know any more."""
        if self._since is not None:
            self._since = None
            self._kernel.count(False)

    def leave_out(self, at_least: float) -> Group | None:
        """The costliest group is not watched any more; None if none takes so many cores."""
        seconds = self._clock() - self._since if self._since is not None else 0.0
        uses = {group: use for group, use in self._kernel.uses().items() if group > _ROOT}
        if not uses or seconds <= 0 or self._unwatched >= UNWATCHED_AT_MOST:
            return None
        cores = {group: float(use.costs @ SECONDS) / seconds for group, use in uses.items()}
        costliest = max(cores, key=lambda group: cores[group])
        found = None
        if cores[costliest] >= at_least:
            path, service = self._name(costliest, uses[costliest].process)
            self._kernel.unwatch(costliest, path)
            self._unwatched += 1
            found = Group(costliest, path, service, cores[costliest])
        self._begin()
        return found

    def take_back(self, group: Group) -> None:
        self._kernel.watch(group.id)
        self._unwatched -= 1
        self._rejoin(group.id)

    def _begin(self) -> None:
        self._kernel.forget(list(self._kernel.uses()))
        self._kernel.count(True)
        self._since = self._clock()


def path_and_service(processes: ProcessTable, group: int, process: ImageKey) -> tuple[str, str]:
    """As far as the process can still be looked up."""
    try:
        image = processes.image(process)
    except OSError:
        image = None
    lines = image.cgroup.splitlines() if image is not None else []
    paths = [line.removeprefix(_V2) for line in lines if line.startswith(_V2)]
    return (paths[0] if paths else f"id {group}"), str(processes.resource(*process).get("service.name", ""))
