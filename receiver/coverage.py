"""How complete spans are, by edge: of the exchanges that ended between two looks, the share that became a span or was left out
on purpose. What is lost behind the kernel's rings is not known by edge. Of a control group that is not watched (see
:mod:`.cgroup_costs`) there are no edges: it has one point, 0, while anything moves there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from .edges import ResourceItems, Series, SeriesCounts
from .kernel.cgroups import Unwatched
from .kernel.edges import HISTOGRAMS, SUMS
from .metrics_request import MetricsRequest
from .process import ImageKey

_METRIC: Final = "wirespan.coverage"
_DURATION, _DROPPED = HISTOGRAMS.index("duration"), SUMS.index("dropped")


class Coverage:
    """Belongs to the thread that looks at the edges."""

    def __init__(self) -> None:
        self._last: dict[tuple[Series, int], tuple[int, int]] = {}  # series, start → observed, dropped
        self._passed_over: dict[int, int] = {}  # of groups that are not watched

    def add(self, request: MetricsRequest, series: Iterable[SeriesCounts]) -> None:
        """A point for each series with an exchange since the last time."""
        seen: dict[tuple[Series, int], tuple[int, int]] = {}
        for counts in series:
            key = counts.series, counts.start
            observed, dropped = int(counts.slots[_DURATION].sum()), int(counts.sums[_DROPPED])
            seen[key] = observed_before, dropped_before = self._last.get(key, (0, 0))
            if observed > observed_before:  # else what was dropped just after a look belongs to the next point
                share = (dropped - dropped_before) / (observed - observed_before)
                request.add_gauge(_METRIC, counts.series, max(0.0, 1.0 - share))
                seen[key] = observed, dropped
        self._last = seen

    def add_unwatched(
        self,
        request: MetricsRequest,
        groups: Mapping[int, Unwatched],
        describe: Callable[[ImageKey], ResourceItems],
    ) -> None:
        """A point for each group in which anything has moved since the last time."""
        silent = {group for group, of in groups.items() if of.passed_over == self._passed_over.get(group, 0)}
        for resource in {describe(of.process) for group, of in groups.items() if group not in silent}:
            request.add_gauge_of(resource, _METRIC, 0.0)
        self._passed_over = {group: of.passed_over for group, of in groups.items()}
