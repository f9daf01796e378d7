"""Durations in YAML, written as the Collector's: ``300ms``, ``5s``, ``1m30s``, ``1.5h``.

Go's ``time.ParseDuration`` (https://pkg.go.dev/time#ParseDuration) without a sign. A bare number other than 0 is
refused: the Collector takes it as nanoseconds, which is never what was meant.
"""

from __future__ import annotations

import re
from typing import Annotated, TypeAlias

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)"
_DURATION = re.compile(f"(?:{_PART})+", re.ASCII)


def parse_duration(text: object) -> float:
    """Seconds; raises ValueError for what is no duration."""
    if text in (0, "0") and not isinstance(text, bool):
        return 0.0
    if not isinstance(text, str) or not _DURATION.fullmatch(text):
        raise ValueError("is not a duration; write a number and a unit, such as 200ms, 5s or 1m30s")
    return sum(float(number) * _UNITS[unit] for number, unit in re.findall(_PART, text, re.ASCII))


#: A field of a configuration: text in YAML, seconds in Python.
Duration: TypeAlias = Annotated[
    float, BeforeValidator(parse_duration), WithJsonSchema({"type": "string", "pattern": f"^(?:0|(?:{_PART})+)$"})
]


def within(least: str, most: str, *, or_zero: bool = False) -> AfterValidator:
    """Metadata of a field that refuses a :data:`Duration` outside of these two; 0 only where it has a meaning."""
    shortest, longest = parse_duration(least), parse_duration(most)

    def check(seconds: float) -> float:
        if shortest <= seconds <= longest or (or_zero and seconds == 0):
            return seconds
        raise ValueError(f"must be from {least} to {most}{', or 0' if or_zero else ''}")

    return AfterValidator(check)
