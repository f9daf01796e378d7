"""A budget of CPU: while the agent takes more cores than it may, it does less; when it takes fewer again, more.

First fewer exchanges become spans. When there is hardly any left, payload is not read any more. What is given up comes back in
the opposite order, slower than it went, and the slower the more often that was in vain.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final, NamedTuple

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
#: looks with room before payload is read again; doubled each time that it goes
_HOLD: Final = 6
_LONGEST_HOLD: Final = 720


def cpu_used() -> float:
    """Seconds of CPU that the agent has taken since its start: all threads of its process."""
    return time.process_time()


class Steps(NamedTuple):
    """What can be given up; None: not that. limit_spans: to this share of what is configured. read_payload: whether it is read."""

    limit_spans: Callable[[float], None] | None
    read_payload: Callable[[bool], None] | None


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
        self._steps = steps
        self._used, self._clock = used, clock
        self._next = clock() + _GRACE
        self._last: tuple[float, float] | None = None  # of the last look: when, and used until then
        self._share = 1.0
        self._reads = True
        self._beyond = self._calm = 0  # looks in a row
        self._hold = _HOLD
        self._is_exhausted = False  # beyond, and all is given up
        self._has_said_so = False  # since something came back last

    @property
    def degradation(self) -> int:
        """0: none. 1: fewer spans. 2: payload is not read. 3: that is not enough."""
        if self._is_exhausted:
            return 3
        return 2 if not self._reads else 1 if self._share < 1.0 else 0

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
            self._do_less(cores)
        elif self._calm:
            self._do_more(cores)

    def _do_less(self, cores: float) -> None:
        limit, read = self._steps
        if limit is not None and self._share > _LEAST_SHARE:
            first = self._share == 1.0
            self._share = max(_LEAST_SHARE, self._share * max(_FALL, _AIM * self._cores / cores))
            limit(self._share)
            if first:
                logger.warning(
                    "The agent takes more CPU than cpu_budget. Making fewer spans.", extra=self._figures(cores)
                )
        elif read is not None and self._reads:
            self._reads, self._calm = False, 0
            read(False)
            logger.warning(
                "The agent takes more CPU than cpu_budget. Reading no payload: exchanges are of unknown protocols.",
                extra=self._figures(cores),
            )
        else:
            self._say_exhausted(cores)

    def _say_exhausted(self, cores: float) -> None:
        self._is_exhausted = True
        if not self._has_said_so:
            self._has_said_so = True
            logger.warning(
                "The agent takes more CPU than cpu_budget with all given up that can be. Raise cpu_budget, or narrow select.",
                extra=self._figures(cores),
            )

    def _do_more(self, cores: float) -> None:
        limit, read = self._steps
        if read is not None and not self._reads:
            if self._calm < self._hold:
                return
            self._reads, self._hold = True, min(2 * self._hold, _LONGEST_HOLD)
            self._has_said_so = False
            read(True)
            logger.info("The agent takes less CPU again. Reading payload.", extra=self._figures(cores))
        elif limit is not None and self._share < 1.0:
            self._share = min(1.0, self._share * _RISE)
            self._has_said_so = False
            limit(self._share)
            if self._share == 1.0:
                logger.info(
                    "The agent is within its cpu_budget. Making as many spans as configured.",
                    extra=self._figures(cores),
                )

    def _figures(self, cores: float) -> dict[str, float]:
        return {"cores": round(cores, 3), "cpu_budget": self._cores}
