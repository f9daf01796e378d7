"""Spans as rows of numbers in temporary files, so that recordings of any size take little memory.

All spans of a trace go into the same of 64 parts, by a hash of its id. A part at a time is read back: a trace is whole, wherever
its spans stood in the recording.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from .features import FEATURES, values_of
from .keys import KeyTable
from .otlp_spans import SpanFacts

PARTS: Final = 64
_ROWS_AT_ONCE: Final = 8192
_ODD: Final = np.uint64(0x9E3779B97F4A7C15)

#: row: the span's number in the recording. digits: of its trace id in hex.
ROW: Final = np.dtype(
    [
        ("row", "<i8"),
        ("trace", "<u8", 2),
        ("digits", "u1"),
        ("span", "<u8"),
        ("parent", "<u8"),
        ("start", "<u8"),
        ("end", "<u8"),
        ("key", "<i4"),
        ("error", "?"),
        ("weight", "<f4"),
        ("values", "<f4", len(FEATURES)),
    ]
)
Spans: TypeAlias = npt.NDArray[Any]
_MOST: Final = (1 << 64) - 1


class Spool:
    """folder: which is emptied by its owner. keys: rows of new operations are added to it."""

    def __init__(self, folder: Path, keys: KeyTable) -> None:
        self._keys = keys
        self._files = [(folder / f"{part}.rows").open("w+b") for part in range(PARTS)]
        self._rows: list[tuple[Any, ...]] = []
        self.count = 0

    def add(self, facts: SpanFacts) -> None:
        steps = facts.steps()
        identity = (facts.trace, facts.digits, facts.span, facts.parent)
        times = (min(max(facts.start, 0), _MOST), min(max(facts.end, 0), _MOST))
        key = self._keys.row(facts.identity)
        self._rows.append((self.count, *identity, *times, key, facts.error, facts.weight, steps))
        self.count += 1
        if len(self._rows) == _ROWS_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        rows = np.array(self._rows, ROW)
        self._rows.clear()
        rows["values"] = values_of(rows["values"])
        mixed = (rows["trace"][:, 0] ^ rows["trace"][:, 1]) * _ODD
        part = (mixed >> np.uint64(58)).astype(np.int64)
        for number in np.unique(part).tolist():
            self._files[number].write(rows[part == number].tobytes())

    def parts(self) -> Iterator[Spans]:
        """The rows of each part that has any; what was added is flushed before."""
        if self._rows:
            self.flush()
        for file in self._files:
            file.seek(0)
            rows = np.frombuffer(file.read(), ROW)
            if len(rows):
                yield rows

    def close(self) -> None:
        for file in self._files:
            file.close()
