"""A budget of CPU: while the agent takes more cores than it may, it does less; when it takes fewer again, more.

First fewer exchanges become spans. When there is hardly any left, payload is not read any more. Then the control group that costs
most is not watched any more, and the next one. What is given up comes back in the opposite order, slower than it went, and the
slower the more often that was in vain.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol

from .cgroup_costs import Group

logger = logging.getLogger(__name__)

#: seconds after the start before the agent is judged: it has its programs, libraries and tables to load
_GRACE: Final = 10.0
#: seconds of a look; after so many in a row beyond the budget something is given up
_LOOK: Final = 5.0
_LOOKS: Final = 2
#: below this share of the budget there is room again
_ROOM: Final = 0.7
#: of the budget, what fewer spans are to bring it to
_AIM: Final = 0.85
#: the least share of spans that is tried before payload goes; how the share falls at most, and rises, a look
_LEAST_SHARE: Final = 1 / 64
_FALL: Final = 0.25
_RISE: Final = 1.5
#: looks with room before payload is read, or a group watched, again; doubled each time that it goes
_HOLD: Final = 6
_LONGEST_HOLD: Final = 720
#: control groups of which it is remembered how often they went
_HOLDS_KEPT: Final = 256
#: of the budget, what a control group takes at least that is not watched for it
_WORTH_IT: Final = 0.1


def cpu_used() -> float:
    """Seconds of CPU that the agent has taken since its start: all threads of its process."""
    return time.process_time()


class Groups(Protocol):
    """Control groups, and what they cost; see :class:`.cgroup_costs.CgroupCosts`."""

    def are_known(self) -> bool: ...
    def forget(self) -> None: ...
    def leave_out(self, at_least: float) -> Group | None: ...
    def take_back(self, group: Group) -> None: ...


class Steps(NamedTuple):
    """What can be given up; None: not that. limit_spans: to this share of what is configured. read_payload: whether it is read."""

    limit_spans: Callable[[float], None] | None
    read_payload: Callable[[bool], None] | None
    groups: Groups | None = None


class _Step(Protocol):
    """level: what ``wirespan.degradation`` is when some of it is given up."""

    level: int

    @property
    def is_given_up(self) -> bool: ...

    def less(self, cores: float) -> bool:
        """Give up some of it; whether there was any. cores: what the agent takes."""
        ...

    def more(self, cores: float, calm: int) -> bool:
        """For so many looks in a row there was room. Whether some of it comes back."""
        ...


class _Spans:
    level = 1

    def __init__(self, budget: float, limit: Callable[[float], None]) -> None:
        self._budget, self._limit = budget, limit
        self._share = 1.0

    @property
    def is_given_up(self) -> bool:
        return self._share < 1.0

    def less(self, cores: float) -> bool:
        if self._share <= _LEAST_SHARE:
            return False
        first = self._share == 1.0
        self._share = max(_LEAST_SHARE, self._share * max(_FALL, _AIM * self._budget / cores))
        self._limit(self._share)
        if first:
            logger.warning(
                "The agent takes more CPU than cpu_budget. Making fewer spans.", extra=_figures(cores, self._budget)
            )
        return True

    def more(self, cores: float, calm: int) -> bool:
        if self._share == 1.0:
            return False
        self._share = min(1.0, self._share * _RISE)
        self._limit(self._share)
        if self._share == 1.0:
            logger.info(
                "The agent is within its cpu_budget. Making as many spans as configured.",
                extra=_figures(cores, self._budget),
            )
        return True


class _Payload:
    level = 2

    def __init__(self, budget: float, read: Callable[[bool], None]) -> None:
        self._budget, self._read = budget, read
        self._reads = True
        self._hold = _HOLD

    @property
    def is_given_up(self) -> bool:
        return not self._reads

    def less(self, cores: float) -> bool:
        if not self._reads:
            return False
        self._reads = False
        self._read(False)
        logger.warning(
            "The agent takes more CPU than cpu_budget. Reading no payload: exchanges are of unknown protocols.",
            extra=_figures(cores, self._budget),
        )
        return True

    def more(self, cores: float, calm: int) -> bool:
        if self._reads or calm < self._hold:
            return False
        self._reads, self._hold = True, min(2 * self._hold, _LONGEST_HOLD)
        self._read(True)
        logger.info("The agent takes less CPU again. Reading payload.", extra=_figures(cores, self._budget))
        return True


class _Groups:
    """The last one that went comes back first."""

    level = 3

    def __init__(self, budget: float, groups: Groups) -> None:
        self._budget, self._groups = budget, groups
        self._left_out: list[Group] = []
        self._holds: OrderedDict[int, int] = OrderedDict()  # looks, of those that went lately

    @property
    def is_given_up(self) -> bool:
        return bool(self._left_out)

    def less(self, cores: float) -> bool:
        if not self._groups.are_known():
            return True  # at the next look
        group = self._groups.leave_out(_WORTH_IT * self._budget)
        if group is None:
            return False
        self._left_out.append(group)
        logger.warning(
            "The agent takes more CPU than cpu_budget. Not watching a control group any more.",
            extra={**_named(group), "cores_of_it": round(group.cores, 3), **_figures(cores, self._budget)},
        )
        return True

    def more(self, cores: float, calm: int) -> bool:
        self._groups.forget()
        if not self._left_out:
            return False
        group = self._left_out[-1]
        hold = self._holds.get(group.id, _HOLD)
        if calm < hold:
            return False
        self._left_out.pop()
        self._holds[group.id] = min(2 * hold, _LONGEST_HOLD)
        self._holds.move_to_end(group.id)
        if len(self._holds) > _HOLDS_KEPT:
            self._holds.popitem(last=False)
        self._groups.take_back(group)
        logger.info(
            "The agent takes less CPU again. Watching a control group again.",
            extra={**_named(group), **_figures(cores, self._budget)},
        )
        return True


def _named(group: Group) -> dict[str, Any]:
    return {"cgroup": group.path, "service": group.service}


def _figures(cores: float, budget: float) -> dict[str, float]:
    return {"cores": round(cores, 3), "cpu_budget": budget}


class CpuBudget:
    """cores: that the agent may take. used: seconds of CPU so far. clock: seconds."""

    def __init__(
        self,
        cores: float,
        steps: Steps,
        used: Callable[[], float] = cpu_used,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cores = cores
        self._steps: list[_Step] = []
        if steps.limit_spans is not None:
            self._steps.append(_Spans(cores, steps.limit_spans))
        if steps.read_payload is not None:
            self._steps.append(_Payload(cores, steps.read_payload))
        if steps.groups is not None:
            self._steps.append(_Groups(cores, steps.groups))
        self._used, self._clock = used, clock
        self._next = clock() + _GRACE
        self._last: tuple[float, float] | None = None  # of the last look: when, and used until then
        self._beyond = self._calm = 0  # looks in a row
        self._is_exhausted = False  # beyond, and all is given up
        self._has_said_so = False  # since something came back last

    @property
    def degradation(self) -> int:
        """0: none. 1: fewer spans. 2: payload is not read. 3: a control group is not watched. 4: that is not enough."""
        if self._is_exhausted:
            return 4
        return max((step.level for step in self._steps if step.is_given_up), default=0)

    def pace(self) -> None:
        """Called often; looks every few seconds."""
        now = self._clock()
        if now < self._next:
            return
        used = self._used()
        if self._last is not None:
            self._judge((used - self._last[1]) / (now - self._last[0]))
        self._last, self._next = (now, used), now + _LOOK

    def _judge(self, cores: float) -> None:
        self._beyond = self._beyond + 1 if cores > self._cores else 0
        self._calm = self._calm + 1 if cores < _ROOM * self._cores else 0
        self._is_exhausted &= self._beyond > 0
        if self._beyond >= _LOOKS:
            self._is_exhausted = not any(step.less(cores) for step in self._steps)
            self._say_if_exhausted(cores)
        elif self._calm:
            self._do_more(cores)

    def _say_if_exhausted(self, cores: float) -> None:
        if self._is_exhausted and not self._has_said_so:
            self._has_said_so = True
            logger.warning(
                "The agent takes more CPU than cpu_budget with all given up that can be. Raise cpu_budget, or narrow select.",
                extra=_figures(cores, self._cores),
            )

    def _do_more(self, cores: float) -> None:
        for step in reversed(self._steps):
            waits = step.is_given_up
            if step.more(cores, self._calm):
                self._calm = 0
                self._has_said_so = False
            if waits:
                return
