"""The shape of traces: time of a span's own, calls that are unusual or missing, sets of operations never seen."""

from __future__ import annotations

import numpy as np
import pytest

from wirespan.processors.anomaly.features import CALLS, OWN_TIME
from wirespan.processors.anomaly.spool import ROW, Spans
from wirespan.processors.anomaly.structure import Shapes, Traces, assembled

MS = 1_000_000
BEGIN = 1_700_000_000_000_000_000


def rows(*spans: tuple[int, int, int, int, int, int], weight: float = 1.0) -> Spans:
    """trace, span, parent, key, and first and last ms."""
    found = np.zeros(len(spans), ROW)
    for row, (trace, span, parent, key, first, last) in zip(found, spans, strict=True):
        row["trace"], row["span"], row["parent"], row["key"] = (0, trace), span, parent, key
        row["start"], row["end"], row["weight"] = BEGIN + first * MS, BEGIN + last * MS, weight
        row["values"] = np.nan
    return found


def of_span(traces: Traces, span: int, feature: int) -> float:
    return float(np.expm1(traces.spans["values"][traces.spans["span"] == span, feature])[0])


@pytest.mark.parametrize(
    ("children", "own"),
    [
        ([], 100),
        ([(10, 30), (50, 60)], 70),
        ([(10, 50), (20, 40)], 60),  # one within the other
        ([(10, 50), (40, 70)], 40),
        ([(20, 40), (20, 40), (20, 40)], 80),
        ([(90, 500)], 90),  # detached: it goes on when its parent has answered
        ([(-50, 20)], 80),  # of a machine whose clock is behind
        ([(300, 400)], 100),
        ([(0, 100)], 0),
        ([(60, 20)], 100),  # it ends before it begins
    ],
)
def test_own_time_is_what_no_call_covers(children: list[tuple[int, int]], own: float) -> None:
    spans = [(1, 9, 0, 0, 0, 100), *((1, 10 + at, 9, 1, *times) for at, times in enumerate(children))]
    others = [(2, 9, 0, 0, 0, 100), (2, 50, 9, 1, 0, 99)]  # another trace with the same ids
    traces = assembled(rows(*spans, *others))
    first = traces.spans["trace"][:, 1] == 1
    found = np.expm1(traces.spans["values"][first & (traces.spans["span"] == 9), OWN_TIME])[0] / 1000
    assert found == pytest.approx(own, abs=0.01)
    assert np.expm1(traces.spans["values"][first & (traces.spans["span"] == 9), CALLS])[0] == pytest.approx(
        len(children)
    )


def test_parents_are_found_in_any_order_and_ids_of_others_are_none() -> None:
    traces = assembled(
        rows(
            (1, 2, 1, 1, 5, 6),
            (1, 1, 0, 0, 0, 9),
            (2, 3, 1, 1, 0, 9),
            (3, 4, 4, 0, 0, 1),
            (4, 5, 6, 0, 0, 2),
            (4, 6, 5, 0, 1, 2),
        )
    )
    by_span = {int(s): int(p) for s, p in zip(traces.spans["span"], traces.parents, strict=True)}
    assert traces.spans["span"][by_span[2]] == 1
    assert [by_span[span] for span in (1, 3, 4)] == [-1, -1, -1]  # a root, an orphan, and a parent of itself
    assert len(traces) == 4
    assert traces.spans["span"][traces.roots].tolist() == [1, 3, 4, 5]


def a_trace(number: int, *keys: int) -> list[tuple[int, int, int, int, int, int]]:
    """A root of key 0 that calls these."""
    return [(number, 1, 0, 0, 0, 100), *((number, 2 + at, 1, key, 1, 2) for at, key in enumerate(keys))]


@pytest.fixture
def shapes() -> Shapes:
    """Of a thousand traces: a root that always calls 1, and 2 in one of ten."""
    found = Shapes()
    spans = [span for number in range(1000) for span in a_trace(number, *((1,) if number % 10 else (1, 2)))]
    found.learn(assembled(rows(*spans)))
    found.settle()
    return found


@pytest.mark.parametrize(
    ("keys", "unusual", "missing", "novel"),
    [
        ((1,), False, False, False),
        ((1, 2), False, False, False),
        ((1, 1, 1), False, False, False),
        ((), False, True, True),
        ((2,), False, True, True),
        ((1, 3), True, False, True),
    ],
)
def test_a_call_that_is_new_or_missing_is_a_surprise(
    shapes: Shapes, keys: tuple[int, ...], unusual: bool, missing: bool, novel: bool
) -> None:
    traces = assembled(rows(*a_trace(7777, *keys)))
    found = shapes.calls(traces, seen=False)
    assert [surprise[0] > 5 for surprise in found] == [unusual, missing]
    assert (shapes.novelty(traces, seen=False)[0] > 5) == novel
    assert all((surprise[1:] < 1).all() for surprise in found)


def test_what_was_learned_is_judged_as_if_it_had_not_been() -> None:
    shapes = Shapes()
    spans = [span for number in range(1000) for span in a_trace(number, *((1,) if number else (1, 3)))]
    traces = assembled(rows(*spans))
    shapes.learn(traces)
    shapes.settle()
    assert shapes.novelty(traces, seen=True)[0] > 5
    assert shapes.novelty(traces, seen=True)[1:].max() < 1
    assert shapes.calls(traces, seen=True)[0].max() > 5


def test_nothing_is_missed_where_traces_were_sampled(shapes: Shapes) -> None:
    traces = assembled(rows(*a_trace(7777, 3), weight=10.0))
    assert not np.any(shapes.calls(traces, seen=False))
    assert not np.any(shapes.novelty(traces, seen=False))


def test_a_root_that_was_never_seen_is_a_surprise(shapes: Shapes) -> None:
    assert shapes.novelty(assembled(rows((1, 1, 0, 9, 0, 1))), seen=False)[0] > 5
