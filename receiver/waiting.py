"""Records whose spans depend on what is not known yet; see :mod:`.instrumentation`.

They are looked at again when more is known. There is a limit to how many wait, and to how long each waits for its own
sake; what is on trial is a process, which has a deadline of its own.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from .scopes import Records

#: records that wait; more are judged by what is known
WAITING_LIMIT: Final = 4_096
#: seconds within which deadlines are one
_TOGETHER: Final = 0.5


@dataclass(frozen=True, slots=True)
class Patience:
    """What records may wait for: that the client's side of a server's exchange is seen (until ``deadline``, of
    time.monotonic()), and that the trial of a process ends. is_new: they have not waited yet."""

    for_clients: bool
    for_processes: bool
    deadline: float = math.inf
    is_new: bool = True


IMPATIENT: Final = Patience(False, False)


class Waiting:
    """patience: seconds that a record may wait for its client. Belongs to the drain's thread."""

    def __init__(self, patience: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._patience = patience
        self._clock = clock
        self._groups: list[tuple[float, Records]] = []
        self._count = 0

    def __len__(self) -> int:
        """How many wait; any thread may ask."""
        return self._count

    def patience_of_new(self, count: int) -> Patience:
        """What so many new records may wait for."""
        room = self._count + count <= WAITING_LIMIT
        return Patience(room, room, self._clock() + self._patience)

    def add(self, records: Records, deadline: float) -> None:
        """Keep a copy of these."""
        self._count += len(records)
        for index, (other, group) in enumerate(self._groups):
            if group.dtype == records.dtype and (other == deadline or abs(other - deadline) < _TOGETHER):
                self._groups[index] = (min(other, deadline), np.concatenate((group, records)))
                return
        self._groups.append((deadline, records.copy()))

    def take(self, more_is_known: bool, stopping: bool) -> Iterator[tuple[Records, Patience]]:
        """Those to be looked at again; who does so adds those that wait on."""
        now = self._clock()
        due = more_is_known or stopping or any(deadline <= now for deadline, _ in self._groups)
        groups, self._groups = (self._groups, []) if due else ([], self._groups)
        for deadline, records in groups:
            self._count -= len(records)
            in_time = now < deadline < math.inf
            yield (
                records,
                Patience(
                    for_clients=in_time and not stopping,
                    for_processes=not stopping,
                    deadline=deadline if in_time else math.inf,
                    is_new=False,
                ),
            )
