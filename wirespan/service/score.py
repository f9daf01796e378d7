"""``wirespan score``: recordings in, judged recordings out, and on the terminal what is most at odds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import click

from ..processors.anomaly.detector import DetectorName
from ..processors.anomaly.offline import Offline, Result
from ..processors.anomaly.recordings import RecordingError, expand
from ..processors.anomaly.standings import Standing

_ROWS = 15
_REDRAWN_EVERY = 0.5


class Progress:
    """A line on stderr that is written anew, if stderr is a terminal; else one line for each thing done."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._doing, self._next = "", 0.0

    def __call__(self, doing: str, spans: int) -> None:
        now = time.monotonic()
        if self._terminal and (now >= self._next or doing != self._doing):
            self._next = now + _REDRAWN_EVERY
            click.echo(f"\r\x1b[K{doing}: {spans:,} spans", nl=False, err=True)
        elif doing != self._doing and not self._terminal:
            click.echo(doing, err=True)
        self._doing = doing

    def end(self) -> None:
        if self._terminal:
            click.echo("\r\x1b[K", nl=False, err=True)


def score(
    test: Sequence[str],
    train: Sequence[str],
    output: Path | None,
    traces: Path | None,
    detector: DetectorName,
    threshold: float,
    seed: int,
) -> str:
    """Judge the recordings; returns what to show. Raises RecordingError."""
    progress = Progress()
    offline = Offline(detector, seed, threshold, progress)
    judged, learned = expand(test), expand(train)
    _refuse_to_overwrite([*judged, *learned], output, traces)
    try:
        with ExitStack() as files:
            # Before all the work: that it cannot be written should not be known after it.
            into, scores = _opened(files, output), _opened(files, traces)
            offline.train(learned)
            result = offline.score(judged, into, scores)
    finally:
        progress.end()
    return _shown(result, offline.worst(result, _ROWS), threshold)


def _opened(files: ExitStack, path: Path | None) -> BinaryIO | None:
    if path is None:
        return None
    try:
        return files.enter_context(path.open("wb"))
    except OSError as error:
        raise RecordingError(f"{path}: {error.strerror}") from error


def _refuse_to_overwrite(read: Sequence[Path], *written: Path | None) -> None:
    """What is read would be gone before it was."""
    taken = {path.resolve() for path in read}
    for path in written:
        if path is not None and path.resolve() in taken:
            raise RecordingError(f"{path}: is read, and cannot be written as well")


def _shown(result: Result, worst: Sequence[Standing], threshold: float) -> str:
    said = [
        f"{result.spans:,} spans of {result.traces:,} traces: {result.odd:,} spans score {threshold:g} or more, "
        f"where {result.spans * (1 - threshold):,.0f} are expected of normal ones"
    ]
    if result.unknown:
        said.append(f"{result.unknown:,} spans are of operations that were seen too seldom to judge them")
    if result.malformed:
        said.append(f"{result.malformed:,} requests could not be read; they are copied as they are")
    if not worst:
        return "\n".join([*said, "No operation is at odds with what was learned."])
    heads = ("SERVICE", "OPERATION", "SPANS", "ODD", "SIGMA", "MOSTLY")
    rows = [(w.service, w.operation, f"{w.spans:,}", f"{w.odd:,}", f"{w.excess:.1f}", w.why) for w in worst]
    return "\n".join([*said, "", *_aligned(heads, rows)])


def _aligned(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Numbers to the right, the last column as long as it is."""
    clipped = [
        [cell if len(cell) <= 48 or at == len(heads) - 1 else f"{cell[:47]}…" for at, cell in enumerate(row)]
        for row in (heads, *rows)
    ]
    widths = [max(map(len, column)) for column in zip(*clipped, strict=True)]
    adjust: list[Callable[[str, int], str]] = [str.ljust, str.ljust, str.rjust, str.rjust, str.rjust, str.ljust]
    return ["  ".join(f(cell, w) for f, cell, w in zip(adjust, row, widths, strict=True)).rstrip() for row in clipped]
