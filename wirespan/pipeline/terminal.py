"""Whether a stream is a terminal that text can be placed on, rather than only appended to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TextIO

#: values of TERM that say that it cannot move its cursor
_WITHOUT_CURSOR = ("", "dumb", "unknown")


def can_be_redrawn(stream: TextIO, environment: Mapping[str, str]) -> bool:
    return stream.isatty() and environment.get("TERM", "") not in _WITHOUT_CURSOR
