"""Which exchanges become spans: the levels of bpf/sampling.h, and what a span says of its own.

A span is kept if the low 56 bits of its trace id are at or above a threshold, as OpenTelemetry's probability sampling has it
(https://opentelemetry.io/docs/specs/otel/trace/tracestate-probability-sampling/). Level 0 keeps all. With a fixed
probability level 1 has its threshold; with a budget eight levels halve the probability, and policies (see :mod:`.policies`) say
which one holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

LEVELS: Final = 256
_PER_OCTAVE: Final = 8
_ROUNDING: Final = 1e-9  # so that all but for a rounding error is all
_ALL: Final = 1 << 56
#: of the right half of a trace id, what decides
LOW_56_BITS: Final = np.uint64(_ALL - 1)


def threshold_of(probability: float) -> int:
    """Of 2^56: so much of the trace ids is left out."""
    return round((1.0 - probability) * _ALL)


def trace_state(threshold: int) -> str:
    """The W3C tracestate of a span kept at this threshold: OpenTelemetry's ``th``, hex without the zeros at its end; empty where
    everything is kept."""
    return f"ot=th:{threshold:014x}".rstrip("0") if threshold else ""


@dataclass(frozen=True, slots=True)
class KeptBy:
    """What a span that was kept by a level says. trace_state: empty if all are kept."""

    trace_state: str
    probability: float


class Sampling:
    """probability: fixed, unless there is a budget, max_per_second, whose levels follow the load. keep_errors: what failed is a
    class of its own, with a fixed probability kept beyond it. slow: seconds from which on an exchange is slow, likewise; None:
    with a budget this is learned, otherwise nothing is."""

    def __init__(
        self,
        probability: float = 1.0,
        max_per_second: float | None = None,
        keep_errors: bool = False,
        slow: float | None = None,
    ) -> None:
        self.max_per_second = max_per_second
        self.budgeted = budgeted = max_per_second is not None
        self.keep_errors = keep_errors
        self.slow = slow
        self.by_policy = budgeted or (probability < 1.0 and (keep_errors or slow is not None))
        if budgeted:
            shares = [2.0 ** (-level / _PER_OCTAVE) for level in range(LEVELS)]
        else:
            shares = [1.0, *[probability] * (LEVELS - 1)]
        self._shares = tuple(shares)
        self.thresholds: npt.NDArray[np.uint64] = np.array([threshold_of(share) for share in shares], np.uint64)
        self.first_level = 0 if budgeted or probability == 1.0 else 1

    @property
    def first_levels(self) -> tuple[int, int, int]:
        """Of policies, by ``enum sampling_class``: the rest, what is slow, what failed."""
        level = self.first_level
        return level, level if self.slow is None else 0, 0 if self.keep_errors else level

    @property
    def active(self) -> bool:
        """Whether anything is ever left out."""
        return self.budgeted or self.first_level > 0

    def kept_by(self, level: int) -> KeptBy:
        return self._kept_by[level]

    @cached_property
    def _kept_by(self) -> tuple[KeptBy, ...]:
        return tuple(
            KeptBy(trace_state(threshold), share)
            for threshold, share in zip(self.thresholds.tolist(), self._shares, strict=True)
        )


def levels_of(shares: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """The lowest levels of a budget that keep no more than these shares, each."""
    steps = -np.log2(np.clip(shares, 2.0**-LEVELS, 1.0)) * _PER_OCTAVE
    return np.minimum(LEVELS - 1, np.ceil(steps - _ROUNDING)).astype(np.uint8)
