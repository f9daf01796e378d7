"""How well traces with a fault are told from others, and what that costs: ``PYTHONPATH=.:tests .venv/bin/python -m bench.anomaly``.

Traffic is made up (tests/support/traffic.py) and seeded: some thousand traces without a fault to learn from, as many with one fault
in a hundred. Ours is compared with what is usually done, each getting a trace's score as the largest of its spans: three sigma
and EWMA on an operation's durations, and an isolation forest and HBOS on raw values. Nothing of ours was tuned on the seeds that are
reported.
"""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import click
import numpy as np
from sklearn.ensemble import IsolationForest
from sklearn.metrics import average_precision_score

from support.batches import make_batch
from support.traffic import FAULTS, Recording, record
from wirespan.pipeline.component import Context, Outcome
from wirespan.pipeline.counters import Counters
from wirespan.pipeline.encoded import EncodedBatch
from wirespan.pipeline.spans import SpanBatch
from wirespan.processors.anomaly.columns import ColumnReader
from wirespan.processors.anomaly.detector import DetectorName
from wirespan.processors.anomaly.offline import Offline
from wirespan.processors.anomaly.processor import AnomalyProcessor, AnomalySettings

SEVERITIES = (2.0, 4.0, 8.0)
SHARE = 0.01
BATCH = 4096

#: (n, 3) of spans: duration in ms, calls, error
Raw = Any
Scorer = Callable[[Raw, Raw, Any, Any], Any]


def spans_of(recording: Recording) -> tuple[Raw, Any, Any]:
    """Of each span its raw values, its operation and the number of its trace."""
    rows, operations, traces = [], [], []
    for number, trace in enumerate(recording.traces):
        calls = dict.fromkeys((span["spanId"] for span in trace), 0)
        for span in trace:
            if span["parent"]:
                calls[span["parent"]] += 1
        for span in trace:
            rows.append(((span["end"] - span["start"]) / 1e6, calls[span["spanId"]], span["error"]))
            operations.append(hash((span["service"], span["name"], span["kind"])))
            traces.append(number)
    return np.array(rows, np.float64), np.array(operations), np.array(traces)


def three_sigma(train: Raw, test: Raw, known: Any, asked: Any) -> Any:
    """Distance of an operation's duration from its mean, in standard deviations."""
    found = np.zeros(len(test))
    for operation in np.unique(asked):
        usual = train[known == operation, 0]
        if len(usual) > 1:
            at = asked == operation
            found[at] = np.abs(test[at, 0] - usual.mean()) / max(usual.std(), 1e-6)
    return found


def ewma(train: Raw, test: Raw, known: Any, asked: Any, alpha: float = 0.01) -> Any:
    """The same from a mean and variance that follow."""
    state: dict[int, tuple[float, float]] = {}
    found = np.zeros(len(test))
    for values, operations, out in ((train, known, None), (test, asked, found)):
        for at, (operation, value) in enumerate(zip(operations.tolist(), values[:, 0].tolist(), strict=True)):
            mean, variance = state.get(operation, (value, 1.0))
            off = value - mean
            if out is not None:
                out[at] = abs(off) / max(variance, 1e-12) ** 0.5
            state[operation] = mean + alpha * off, (1 - alpha) * (variance + alpha * off * off)
    return found


def raw_forest(train: Raw, test: Raw, known: Any, asked: Any) -> Any:
    forest = IsolationForest(n_estimators=100, random_state=0).fit(train[:20_000])
    return -forest.score_samples(test)


def hbos(train: Raw, test: Raw, known: Any, asked: Any) -> Any:
    """Histogram-based: the sum of the logarithms of how rare each value is."""
    found = np.zeros(len(test))
    for column in range(train.shape[1]):
        low, high = np.log1p(train[:, column]).min(), np.log1p(train[:, column]).max() + 1e-9
        shares, edges = np.histogram(np.log1p(train[:, column]), 50, (low, high))
        at = np.clip(np.searchsorted(edges, np.log1p(test[:, column])) - 1, -1, 50)
        share = np.where((at < 0) | (at >= 50), 0, shares[np.clip(at, 0, 49)])
        found -= np.log((share + 0.5) / len(train))
    return found


BASELINES: Mapping[str, Scorer] = {
    "3-sigma": three_sigma,
    "EWMA": ewma,
    "raw IsolationForest": raw_forest,
    "HBOS": hbos,
}


class Ours:
    """A model of one training recording, whose scores are asked for by recording."""

    def __init__(self, train: Recording, detector: DetectorName, seed: int) -> None:
        self._offline = Offline(detector, seed, 0.999, lambda doing, count: None)
        with _file(train) as path:
            self._offline.train([path])

    def scores(self, test: Recording) -> tuple[Any, float]:
        """Of each trace, in order; and the share of spans above 0.999."""
        rows = io.BytesIO()
        with _file(test) as path:
            result = self._offline.score([path], None, rows)
        found = dict(line.split(",") for line in rows.getvalue().decode().splitlines()[1:])
        return np.array([float(found[trace[0]["traceId"]]) for trace in test.traces]), result.odd / result.spans


@contextmanager
def _file(recording: Recording) -> Iterator[Path]:
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        file.write(recording.text)
        file.flush()
        yield Path(file.name)


def precision(recording: Recording, scores: Any, kind: str = "") -> float:
    """AUPRC of the faults of a kind, or all, among the traces without any."""
    kinds = [recording.faults.get(trace[0]["traceId"]) for trace in recording.traces]
    rows = np.array([found is None or kind in ("", found) for found in kinds])
    return float(average_precision_score(np.array([k is not None for k in kinds])[rows], scores[rows]))


def by_maximum(scores: Any, traces: Any) -> Any:
    return np.maximum.reduceat(scores, np.searchsorted(traces, np.arange(traces[-1] + 1)))


def compared(traces: int, seed: int) -> dict[str, list[float]]:
    """AUPRC by method: all faults at each severity, then each kind at the middle one. And the shares above 0.999."""
    train = record(traces, seed)
    raw, known, _ = spans_of(train)
    ours = {name: Ours(train, name, seed) for name in ("isolation_forest", "tails")}
    found: dict[str, list[float]] = {}
    for severity in SEVERITIES:
        test = record(traces, seed + 500, SHARE, severity)
        values, asked, numbers = spans_of(test)
        scores = {f"wirespan, {name}": model.scores(test)[0] for name, model in ours.items()}
        scores |= {name: by_maximum(scorer(raw, values, known, asked), numbers) for name, scorer in BASELINES.items()}
        for name, of_traces in scores.items():
            found.setdefault(name, []).append(precision(test, of_traces))
        if severity == SEVERITIES[1]:
            by_kind = {name: [precision(test, s, kind) for kind in FAULTS] for name, s in scores.items()}
    for name, kinds in by_kind.items():
        found[name] += kinds
    calm = record(traces, seed + 900)
    for name, model in ours.items():
        of_traces, spans = model.scores(calm)
        found[f"calibration, {name}"] = [spans, float((of_traces > 0.999).mean())]
    return found


class _Sink:
    def consume(self, batch: SpanBatch) -> None: ...

    def consume_encoded(self, batch: EncodedBatch) -> Outcome:
        return Outcome.TAKEN


def cost(detector: DetectorName) -> list[tuple[str, float]]:
    """µs a span of the processor, in batches of 4,096: from columns to columns, and of that what judging and learning take; the
    least of 20 rounds."""
    settings = AnomalySettings(detector=detector)
    processor = AnomalyProcessor(settings, Context("anomaly", Counters(), pipeline="traces"), _Sink())
    for seed in range(30):
        processor.consume(make_batch(BATCH, seed))
    assert processor.live.train()
    batch, model = make_batch(BATCH, 99), processor.live.model
    spans = ColumnReader(model.keys).observations(batch)
    return [
        ("all in all", _least(lambda: processor.consume(batch))),
        ("judging", _least(lambda: model.judge(spans))),
        ("learning", _least(lambda: model.learn(spans, np.ones(BATCH, np.bool_)))),
    ]


def _least(work: Callable[[], object]) -> float:
    times = []
    for _ in range(20):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return min(times) / BATCH * 1e6


def table(heads: Sequence[str], found: Sequence[Mapping[str, list[float]]], names: Iterable[str]) -> str:
    """In Markdown, by method: means over the seeds, and below them the least and the largest."""
    lines = [f"| {' | '.join(heads)} |", f"| {' | '.join(['---'] * len(heads))} |"]
    for name in names:
        columns = [[one[name][at] for one in found] for at in range(len(heads) - 1)]
        cells = [f"{np.mean(c):.3g} ({min(c):.3g} to {max(c):.3g})" for c in columns]
        lines.append(f"| {' | '.join([name, *cells])} |")
    return "\n".join(lines)


@click.command()
@click.option("--traces", default=10_000, help="To learn from, and to judge.")
@click.option("--seeds", default=3)
def main(traces: int, seeds: int) -> None:
    found = [compared(traces, 100 + seed) for seed in range(seeds)]
    heads = ["AUPRC", *(f"x{severity:g}" for severity in SEVERITIES), *FAULTS]
    click.echo(table(heads, found, [name for name in found[0] if not name.startswith("calibration")]))
    click.echo()
    heads = ["share above 0.999 of normal", "spans", "traces"]
    click.echo(table(heads, found, [name for name in found[0] if name.startswith("calibration")]))
    click.echo()
    for detector in get_args(DetectorName):
        said = ", ".join(f"{name} {least:.2f} µs" for name, least in cost(detector))
        click.echo(f"{detector}: {said} a span")


if __name__ == "__main__":
    main()
