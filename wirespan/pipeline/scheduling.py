"""How the agent's threads give way to what they watch.

A thread of the policy SCHED_IDLE is preempted the moment another wants its core, so what it does is not felt; but on
cores that are never idle it gets next to no time. So a thread that has little to do does it as such, and one that lags
is scheduled like any other, but for not preempting others (SCHED_BATCH). Threads inherit
the policy of the one that starts them: those that have work of their own set theirs.
"""

from __future__ import annotations

import os
import threading
from functools import cache


def _set(policy: int, thread: int = 0) -> bool:
    """Of the calling thread, or that native id."""
    try:
        os.sched_setscheduler(thread, policy, os.sched_param(0))
    except OSError:
        return False
    return True


@cache
def _may_return() -> bool:
    """Whether a thread may leave SCHED_IDLE again, which takes CAP_SYS_NICE or RLIMIT_NICE. Tried by one that is gone
    afterwards."""
    found: list[bool] = []
    trial = threading.Thread(target=lambda: found.append(_set(os.SCHED_IDLE) and _set(os.SCHED_BATCH)))
    trial.start()
    trial.join()
    return found == [True]


def schedule_as_batch() -> None:
    """Schedule the calling thread like any other, but for not preempting them. One that may not leave SCHED_IDLE was never
    put there."""
    _set(os.SCHED_BATCH)


class Yielding:
    """The policy of the thread that makes it."""

    def __init__(self) -> None:
        self._gives_way = self._hurries = False
        self._thread = threading.get_native_id()
        schedule_as_batch()

    def give_way(self, wanted: bool) -> None:
        """Whether to leave a core to whoever wants it."""
        wanted = wanted and _may_return()
        if wanted != self._gives_way and _set(os.SCHED_IDLE if wanted else os.SCHED_BATCH):
            self._gives_way = wanted
        if wanted and self._hurries:
            self._gives_way = not _set(os.SCHED_BATCH)

    def hurry(self) -> None:
        """From another thread: it gives way no more."""
        self._hurries = True
        _set(os.SCHED_BATCH, self._thread)
