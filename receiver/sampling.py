"""Which exchanges become spans: the levels of bpf/sampling.h, and what a span says of its own.

A span is kept if the low 56 bits of its trace id are at or above a threshold, as OpenTelemetry's probability sampling has it
(https://opentelemetry.io/docs/specs/otel/trace/tracestate-probability-sampling/). Level 0 keeps all. With a fixed
probability level 1 has its threshold; with a budget eight levels halve the probability.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

LEVELS: Final = 256
_PER_OCTAVE: Final = 8
_ALL: Final = 1 << 56


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
    """probability: fixed, unless there is a budget, whose levels follow the load."""

    def __init__(self, probability: float = 1.0, budgeted: bool = False) -> None:
        self.budgeted = budgeted
        if budgeted:
            shares = [2.0 ** (-level / _PER_OCTAVE) for level in range(LEVELS)]
        else:
            shares = [1.0, *[probability] * (LEVELS - 1)]
        self._shares = tuple(shares)
        self.thresholds: npt.NDArray[np.uint64] = np.array([threshold_of(share) for share in shares], np.uint64)
        self.first_level = 0 if budgeted or probability == 1.0 else 1

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


def level_of(share: float) -> int:
    """The lowest level of a budget that keeps no more than this share."""
    if share >= 1.0:
        return 0
    if share <= 0.0:
        return LEVELS - 1
    return min(LEVELS - 1, math.ceil(-math.log2(share) * _PER_OCTAVE))
