"""``wirespan score``: what is odd in one recording, compared with another.

The training recording is read once, into a spool; its parts are gone through three times, for baselines and shapes, for samples,
and for whole traces. The other one is then spooled and judged, and read again to be written with what was found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from .detector import DetectorName
from .features import FEATURES, Observations, Reals
from .keys import KeyTable
from .marking import mark
from .model import Model
from .recordings import RecordingError, requests
from .spool import Spool
from .standings import Standing, Standings
from .structure import Shapes, Traces, assembled
from .traces import TraceCalibration, parts_of
from .words import drivers_of, in_words

Progress: TypeAlias = Callable[[str, int], None]

KEYS: Final = 4_000
_LEARN_AFTER: Final = 30
#: what is kept of each span until it is written
_JUDGED: Final = np.dtype([("score", "<f8"), ("key", "<i4"), ("drivers", "<i1", 3), ("values", "<f4", 3)])
_TOLD_EVERY: Final = 10_000


@dataclass(slots=True)
class Result:
    """malformed: requests that could not be read. unknown: spans of operations that were not seen often enough."""

    spans: int = 0
    traces: int = 0
    malformed: int = 0
    unknown: int = 0
    odd: int = 0
    standings: Standings = field(default_factory=Standings)


class Offline:
    """What is normal, learned from recordings. threshold: of the score, from which on a span is anomalous."""

    def __init__(self, detector: DetectorName, seed: int, threshold: float, progress: Progress) -> None:
        self.keys = KeyTable(KEYS)
        self._model = Model(self.keys, detector, seed, learn_after=_LEARN_AFTER)
        self._shapes = Shapes()
        self._whole = TraceCalibration(seed)
        self._threshold, self._progress = threshold, progress

    def train(self, paths: Sequence[Path]) -> None:
        """Raises RecordingError if there is not enough to learn from."""
        with TemporaryDirectory(prefix="wirespan-score-") as folder, closing(Spool(Path(folder), self.keys)) as spool:
            _spooled(spool, paths, "reading what is normal", self._progress)
            if not spool.count:
                raise RecordingError(f"{paths[0]}: there are no spans to learn from")
            for traces in map(assembled, spool.parts()):
                self._learn(traces)
            self._model.baselines.refresh(0.0)
            self._shapes.settle()
            for traces in map(assembled, spool.parts()):
                self._model.sample(self._observed(traces, seen=True))
            samples = self._model.samples()
            if samples is None:
                raise RecordingError(f"{paths[0]}: {spool.count} spans are too few to learn from")
            self._progress("fitting", 0)
            self._model.adopt(self._model.trained(samples, self._model.prepared(samples)))
            for traces in map(assembled, spool.parts()):
                scores = self._model.judge(self._observed(traces, seen=True)).scores
                self._whole.offer(parts_of(traces, scores, self._shapes.novelty(traces, seen=True)), _roots(traces))
            self._whole.settle()

    def score(self, paths: Sequence[Path], output: BinaryIO | None, traces_csv: BinaryIO | None) -> Result:
        """Judge recordings, and write them with what was found, and the scores of their traces."""
        result = Result()
        with TemporaryDirectory(prefix="wirespan-score-") as folder, closing(Spool(Path(folder), self.keys)) as spool:
            result.malformed = _spooled(spool, paths, "reading", self._progress)
            result.spans = spool.count
            if not spool.count:
                raise RecordingError(f"{paths[0]}: there are no spans in it")
            judged = np.memmap(Path(folder) / "judged", _JUDGED, "w+", shape=(spool.count,))
            if traces_csv is not None:
                traces_csv.write(b"trace_id,score\n")
            for traces in map(assembled, spool.parts()):
                scores = self._judge(traces, judged, result)
                if traces_csv is not None:
                    traces_csv.writelines(_csv(traces, scores))
            if output is not None:
                self._write(paths, judged, output)
        return result

    def worst(self, result: Result, count: int) -> list[Standing]:
        """The operations that are most at odds, of what was judged."""
        return result.standings.worst(self.keys, self._model.baselines, count)

    def _learn(self, traces: Traces) -> None:
        spans = traces.spans
        self._model.baselines.observe(spans["key"], spans["values"], spans["error"], spans["weight"])
        self._shapes.learn(traces)

    def _observed(self, traces: Traces, seen: bool) -> Observations:
        spans = traces.spans
        calls, missing = self._shapes.calls(traces, seen)
        return Observations(spans["key"], spans["values"], spans["error"], spans["weight"], calls, missing)

    def _judge(self, traces: Traces, judged: npt.NDArray[Any], result: Result) -> Reals:
        """The scores of the traces; what is found of spans goes to ``judged``."""
        observed = self._observed(traces, seen=False)
        verdict = self._model.judge(observed)
        drivers = drivers_of(verdict.vectors)
        found = np.zeros(len(observed), _JUDGED)
        found["score"], found["key"], found["drivers"] = verdict.scores, observed.keys, drivers
        within = np.clip(drivers, 0, observed.values.shape[1] - 1)
        found["values"] = np.take_along_axis(observed.values, within, 1)
        judged[traces.spans["row"]] = found
        result.traces += len(traces)
        result.unknown += int(np.count_nonzero(np.isnan(verdict.scores)))
        result.odd += int(np.count_nonzero(verdict.scores >= self._threshold))
        result.standings.add(observed.keys, verdict.scores, drivers[:, 0], observed.values, self._threshold)
        parts = parts_of(traces, verdict.scores, self._shapes.novelty(traces, seen=False))
        return self._whole.scores(parts, _roots(traces))

    def _write(self, paths: Sequence[Path], judged: npt.NDArray[Any], output: BinaryIO) -> None:
        row = 0
        for request in requests(paths):
            for span, _ in request.spans:
                found = judged[row]
                row += 1
                score = float(found["score"])
                is_odd = score >= self._threshold
                words = self._words(found) if is_odd else ""
                mark(span, None if np.isnan(score) else score, is_odd, words)
                if row % _TOLD_EVERY == 0:
                    self._progress("writing", row)
            output.write(request.encoded())

    def _words(self, found: Any) -> str:
        values = np.full(len(FEATURES), np.nan, np.float32)
        drivers = found["drivers"].astype(np.int64)
        features = (drivers >= 0) & (drivers < len(FEATURES))
        values[drivers[features]] = found["values"][features]
        return in_words(self._model.baselines, int(found["key"]), values, drivers)


def _spooled(spool: Spool, paths: Iterable[Path], doing: str, progress: Progress) -> int:
    """Put all spans of recordings into a spool. How many requests were malformed."""
    malformed = 0
    for request in requests(paths):
        malformed += request.request is None
        for _, facts in request.spans:
            spool.add(facts)
            if spool.count % _TOLD_EVERY == 0:
                progress(doing, spool.count)
    return malformed


def _roots(traces: Traces) -> npt.NDArray[np.int64]:
    found: npt.NDArray[np.int64] = traces.spans["key"][traces.roots].astype(np.int64)
    return found


def _csv(traces: Traces, scores: Reals) -> Iterator[bytes]:
    """A line for each trace."""
    first = traces.spans[np.searchsorted(traces.trace, np.arange(len(traces)))]
    columns = first["trace"].tolist(), first["digits"].tolist(), scores.tolist()
    for (high, low), digits, score in zip(*columns, strict=True):
        yield f"{high << 64 | low:0{digits}x},{score:.9f}\n".encode()
