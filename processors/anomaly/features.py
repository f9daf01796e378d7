"""What is compared of a span: durations, sizes and counts, as logarithms.

A feature is counted in steps, microseconds, bytes or pieces, and its value is ``log1p`` of these: what doubles is as far away
from 1 ms as from 1 s. A change of less than ``least_change`` steps is none, however narrow the usual range is: nobody feels it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Unit: TypeAlias = Literal["s", "By", "1"]
Values: TypeAlias = npt.NDArray[np.float32]
Rows: TypeAlias = npt.NDArray[np.int32]
Flags: TypeAlias = npt.NDArray[np.bool_]
Reals: TypeAlias = npt.NDArray[np.float64]

STEPS_A_SECOND: Final = 1e6
#: 7 hours, or 25 GB: from there on all is the same
LARGEST_VALUE: Final = 23.95


@dataclass(frozen=True, slots=True)
class Feature:
    """words: what people call it. column: the attribute of spans that has it; none for what is computed."""

    words: str
    unit: Unit
    least_change: float
    column: str = ""


FEATURES: Final = (
    Feature("duration", "s", 0.0),
    Feature("server queue", "s", 0.0, "wirespan.queue.duration"),
    Feature("request transfer", "s", 0.0, "wirespan.request.duration"),
    Feature("processing", "s", 0.0, "wirespan.processing.duration"),
    Feature("response transfer", "s", 0.0, "wirespan.response.duration"),
    Feature("request size", "By", 64.0, "wirespan.request.size"),
    Feature("response size", "By", 64.0, "wirespan.response.size"),
    Feature("own time", "s", 0.0),
    Feature("calls", "1", 0.5),
)
DURATION: Final = 0
OWN_TIME: Final = 7
CALLS: Final = 8

#: what a context vector has behind the distances of the features
SURPRISES: Final = ("errors", "unusual call", "missing call")
ERROR: Final = len(FEATURES)
UNUSUAL_CALL: Final = ERROR + 1
MISSING_CALL: Final = ERROR + 2
VECTOR: Final = len(FEATURES) + len(SURPRISES)


def least_changes(seconds: float) -> Reals:
    """(features,) in steps; ``seconds`` is that of durations."""
    return np.array([seconds * STEPS_A_SECOND if f.unit == "s" else f.least_change for f in FEATURES])


def values_of(steps: npt.NDArray[np.floating]) -> Values:
    """Of (n, features) steps, or of a column of them; what is negative is no measurement, and absent."""
    measured = np.where((steps >= 0) & np.isfinite(steps), steps, np.nan)
    found: Values = np.minimum(np.log1p(measured), LARGEST_VALUE).astype(np.float32)
    return found


@dataclass(slots=True)
class Observations:
    """n spans as a model sees them. keys: rows of their baselines. values: (n, features), NaN where there is none. weights: how
    many each stands for. calls, missing: the surprise of calls that are unusual and of calls that did not come, in nats, where
    the whole trace is known."""

    keys: Rows
    values: Values
    errors: Flags
    weights: npt.NDArray[np.float32]
    calls: Values | None = None
    missing: Values | None = None

    def __len__(self) -> int:
        return len(self.keys)
