"""Which of the exchanges that the kernel did not pair become spans: as bpf/sampling.h decides it, and counted as it does."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..pipeline.counters import Counters
from .ids import IdSource
from .policies import Decided, Policies
from .sampling import LOW_56_BITS, Sampling
from .scopes import Records


class Decisions:
    """For the drain's thread. policies: if it is sampled by these."""

    def __init__(self, sampling: Sampling, policies: Policies | None, ids: IdSource) -> None:
        self._sampling = sampling
        self._policies = policies
        self._ids = ids

    def of(self, records: Records, errors: npt.NDArray[np.bool_]) -> Decided:
        """Writes down by which levels they are kept. errors: whose answer is an error."""
        trace_id, _, _ = self._ids.of_records(records)
        if self._policies is not None:
            return self._policies.decide(records, trace_id[:, 1], errors)
        level = self._sampling.first_level
        records["connection"]["sampling"] = level
        kept: npt.NDArray[np.bool_] = trace_id[:, 1] & LOW_56_BITS >= self._sampling.thresholds[level]
        return Decided(kept, 0, len(records) - int(np.count_nonzero(kept)), 0)


def count_decided(counters: Counters, decided: Decided) -> None:
    counters.add("wirespan.exchanges.failed", decided.failed)
    counters.add("wirespan.exchanges.sampled_out", decided.sampled_out)
    if decided.beyond:
        counters.add("wirespan.exchanges.dropped", decided.beyond, reason="rate_limit")
