"""What is unusual about a span, as people say it: ``processing 180 ms, usually 0.2 to 1.1 ms``."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from .baselines import Baselines
from .features import FEATURES, STEPS_A_SECOND, SURPRISES, Unit, Values

#: of a span, and the least distance of one worth a word, asinh of three standard deviations
_DRIVERS: Final = 3
_LEAST: Final = 1.8184


def drivers_of(vectors: Values) -> npt.NDArray[np.int64]:
    """(n, 3) components of each vector, the farthest first; -1 for those that are none."""
    distances = np.abs(vectors)
    order = np.argsort(-distances, axis=1, kind="stable")[:, :_DRIVERS]
    return np.where(np.take_along_axis(distances, order, 1) >= _LEAST, order, -1)


def in_words(baselines: Baselines, key: int, values: Values, drivers: npt.NDArray[np.int64]) -> str:
    """The drivers of a span, joined by semicolons."""
    return "; ".join(_driver(baselines, key, values, at) for at in drivers.tolist() if at >= 0)


def _driver(baselines: Baselines, key: int, values: Values, at: int) -> str:
    if at >= len(FEATURES):
        return SURPRISES[at - len(FEATURES)]
    feature = FEATURES[at]
    low, high = np.expm1(baselines.usual(key, at))
    found = quantity(float(np.expm1(values[at])), feature.unit)
    return f"{feature.words} {found}, usually {_range(low, high, feature.unit)}"


def _range(low: float, high: float, unit: Unit) -> str:
    if np.isnan(low):
        return "none"
    first, last = quantity(low, unit), quantity(high, unit)
    if first == last:
        return first
    number, _, name = first.rpartition(" ")
    return f"{number} to {last}" if name and last.endswith(f" {name}") else f"{first} to {last}"


def quantity(steps: float, unit: Unit) -> str:
    """With three digits."""
    if unit == "1":
        return f"{steps:.0f}"
    if unit == "By":
        for name in ("B", "kB", "MB", "GB"):
            if steps < 1000 or name == "GB":
                return f"{steps:.3g} {name}"
            steps /= 1000
    seconds = steps / STEPS_A_SECOND
    for name, scale in (("s", 1.0), ("ms", 1e3)):
        if seconds * scale >= 0.9995:
            return f"{_three_digits(seconds * scale)} {name}"
    return f"{_three_digits(seconds * 1e6)} µs"


def _three_digits(number: float) -> str:
    return f"{number:.0f}" if number >= 99.95 else f"{number:.3g}"
