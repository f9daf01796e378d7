"""The shape of traces: who called whom, for how long a span was busy itself, which calls came as always.

Many faults change which operations take part rather than how long they take, and those that remove spans make all that is left
look fast. So of each operation it is counted which others it calls, and of each kind of root which sets of operations its traces
have. A span of whose call that is unusual, or that lacks one which always comes, is told so in nats; a trace is rated by how new
its set is. Traces that were sampled are left out: what is missing in them may have been left out on purpose.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from .features import CALLS, OWN_TIME, STEPS_A_SECOND, Flags, Reals, Values
from .spool import Spans

Indices: TypeAlias = npt.NDArray[np.int64]

#: pairs and sets that are counted; beyond, the rarest are forgotten
COUNTED: Final = 1_000_000
#: share of an operation's spans that have a call, from which on it is missed
_HABIT: Final = 0.9
_ODD: Final = np.uint64(0x9E3779B97F4A7C15)
_ODDER: Final = np.uint64(0xBF58476D1CE4E5B9)
_SHIFT: Final = np.uint64(31)
#: ns of a span that are looked at, a day: floats of sums over all spans of a part are exact enough then
_LONGEST: Final = 86_400e9


@dataclass(frozen=True, slots=True)
class Traces:
    """Whole traces. spans: sorted by trace and start. trace: (n,) its number. parents: (n,) rows, -1 without one here. roots:
    (traces,) the first row without a parent. sampled: (traces,)."""

    spans: Spans
    trace: Indices
    parents: Indices
    roots: Indices
    sampled: Flags

    def __len__(self) -> int:
        return len(self.roots)


def assembled(part: Spans) -> Traces:
    """The traces of these rows, with what only whole traces tell among the values."""
    order = np.lexsort((part["start"], part["trace"][:, 1], part["trace"][:, 0]))
    spans = part[order]
    ids = spans["trace"]
    begins = np.concatenate(([True], (ids[1:] != ids[:-1]).any(axis=1)))
    trace = np.cumsum(begins) - 1
    parents = _parents(spans, trace)
    count = int(trace[-1]) + 1
    starts = np.flatnonzero(begins)
    rootless = np.where(parents < 0, np.arange(len(spans)), len(spans))
    roots = np.minimum.reduceat(rootless, starts)
    roots = np.where(roots < len(spans), roots, starts)  # a circle has none
    sampled = np.bincount(trace, spans["weight"] != 1, count) > 0
    found = Traces(spans, trace, parents, roots, sampled)
    _measure(found)
    return found


def _parents(spans: Spans, trace: Indices) -> Indices:
    """(n,) the row of each span's parent. A server's span that shares its client's id, as Zipkin has it, is no parent of itself."""
    mixed = spans["span"] ^ (trace.astype(np.uint64) * _ODD)
    wanted = spans["parent"] ^ (trace.astype(np.uint64) * _ODD)
    order = np.argsort(mixed, kind="stable")
    at = np.minimum(np.searchsorted(mixed[order], wanted), len(order) - 1)
    found = order[at]
    right = (mixed[found] == wanted) & (spans["parent"] != 0) & (found != np.arange(len(spans)))
    return np.where(right & (trace[found] == trace), found, -1)


def _measure(traces: Traces) -> None:
    """How many calls each span made, and how long it was busy while none was under way."""
    spans, parents = traces.spans, traces.parents
    children = np.flatnonzero(parents >= 0)
    covered = _covered(spans, children, parents[children])
    length = _since(spans["end"], spans["start"])
    own = np.where(length >= 0, np.maximum(length - covered, 0) / (1e9 / STEPS_A_SECOND), np.nan)
    spans["values"][:, OWN_TIME] = np.log1p(own)
    spans["values"][:, CALLS] = np.log1p(np.bincount(parents[children], minlength=len(spans)))


def _covered(spans: Spans, children: Indices, of: Indices) -> Reals:
    """(n,) ns of each span in which a child was under way, overlapping ones once."""
    if not len(children):
        return np.zeros(len(spans))
    order = np.lexsort((spans["start"][children], of))
    children, of = children[order], of[order]
    origin = spans["start"][of]
    length = np.clip(_since(spans["end"][of], origin), 0, _LONGEST)
    begin = np.clip(_since(spans["start"][children], origin), 0, length)
    end = np.clip(_since(spans["end"][children], origin), begin, length)
    # How far the siblings before it reach: a running maximum that begins anew with each parent.
    room = float(end.max()) + 1
    first = np.concatenate(([True], of[1:] != of[:-1]))
    group = np.cumsum(first).astype(np.float64) * room
    reach = np.maximum.accumulate(end + group) - group
    before = np.where(first, 0.0, np.concatenate(([0.0], reach[:-1])))
    fresh = np.maximum(end - np.maximum(begin, before), 0)
    return np.bincount(of, fresh, len(spans)).astype(np.float64)


def _since(times: Any, origin: Any) -> Reals:
    found: Reals = times.astype(np.int64).astype(np.float64) - origin.astype(np.int64).astype(np.float64)
    return found


class Counts:
    """How often each of many numbers came."""

    def __init__(self) -> None:
        self._numbers = np.empty(0, np.uint64)
        self._counts = np.empty(0, np.int64)

    def add(self, numbers: npt.NDArray[np.uint64]) -> None:
        new, counts = np.unique(numbers, return_counts=True)
        both = np.concatenate((self._numbers, new))
        self._numbers, at = np.unique(both, return_inverse=True)
        summed = np.bincount(at, np.concatenate((self._counts, counts)))
        self._counts = summed.astype(np.int64)
        if len(self._numbers) > COUNTED:
            kept = np.sort(np.argsort(-self._counts, kind="stable")[:COUNTED])
            self._numbers, self._counts = self._numbers[kept], self._counts[kept]

    def of(self, numbers: npt.NDArray[np.uint64]) -> Indices:
        if not len(self._numbers):
            return np.zeros(len(numbers), np.int64)
        at = np.minimum(np.searchsorted(self._numbers, numbers), len(self._numbers) - 1)
        found: Indices = np.where(self._numbers[at] == numbers, self._counts[at], 0)
        return found

    def items(self) -> tuple[npt.NDArray[np.uint64], Indices]:
        return self._numbers, self._counts


class Shapes:
    """What was seen of traces. ``learn`` first, then ``settle``, then ask. ``seen`` means that those that are asked about are among
    what was learned: each is then left out of the counts that it is judged by."""

    def __init__(self) -> None:
        self._calls, self._members = _Pairs(), _Pairs()
        self._sets, self._roots = Counts(), Counts()
        self._traces = 0

    def learn(self, traces: Traces) -> None:
        self._calls.learn(*_calls(traces))
        self._members.learn(*_members(traces))
        whole = ~traces.sampled
        roots = _root_keys(traces)[whole]
        self._sets.add(_sets(traces)[whole] ^ (roots * _ODDER))
        self._roots.add(roots)
        self._traces += int(np.count_nonzero(whole))

    def settle(self) -> None:
        self._calls.settle()
        self._members.settle()

    def calls(self, traces: Traces, seen: bool) -> tuple[Values, Values]:
        """(n,) of each span: the surprise of its most unusual call, and of its most missed one."""
        unusual, missing = self._calls.surprises(*_calls(traces), seen)
        sampled = traces.sampled[traces.trace]
        unusual[sampled] = missing[sampled] = 0
        return unusual.astype(np.float32), missing.astype(np.float32)

    def novelty(self, traces: Traces, seen: bool) -> Reals:
        """(traces,) how surprising the set of operations is for the root, and its oddest member or gap; 0 if it was sampled."""
        roots = _root_keys(traces)
        own = np.int64(seen)
        of_root = np.maximum(self._roots.of(roots) - own, 0)
        of_set = np.maximum(self._sets.of(_sets(traces) ^ (roots * _ODDER)) - own, 0)
        surprise = -np.log((of_set + 0.5) / (of_root + 1.0))
        surprise = np.where(of_root == 0, np.log(self._traces + 1.0), surprise)
        unusual, missing = self._members.surprises(*_members(traces), seen)
        found: Reals = np.where(traces.sampled, 0.0, surprise + np.maximum(unusual, missing))
        return found


class _Pairs:
    """Of owners, each of a kind, which other kinds they have: how many have each."""

    def __init__(self) -> None:
        self._owners, self._pairs = Counts(), Counts()
        self._habits: dict[int, list[tuple[int, int]]] = {}

    def learn(self, kinds: npt.NDArray[np.uint64], owners: Indices, has: npt.NDArray[np.uint64]) -> None:
        """kinds: of owners. owners, has: distinct pairs of an owner and a kind that it has."""
        self._owners.add(kinds)
        self._pairs.add(_pair(kinds[owners], has))

    def settle(self) -> None:
        """Note down what nearly all of a kind have."""
        numbers, counts = self._pairs.items()
        kinds = numbers >> np.uint64(32)
        totals = self._owners.of(kinds)
        for at in np.flatnonzero(counts >= _HABIT * totals).tolist():
            habit = int(numbers[at] & np.uint64(0xFFFFFFFF)), int(counts[at])
            self._habits.setdefault(int(kinds[at]), []).append(habit)

    def surprises(
        self, kinds: npt.NDArray[np.uint64], owners: Indices, has: npt.NDArray[np.uint64], seen: bool
    ) -> tuple[Reals, Reals]:
        """(owners,) that of the rarest which one has, and that of the most usual which it lacks."""
        own = int(seen)
        pairs = _pair(kinds[owners], has)
        totals = np.maximum(self._owners.of(kinds) - own, 0)
        unusual, missing = np.zeros(len(kinds)), np.zeros(len(kinds))
        share = (np.maximum(self._pairs.of(pairs) - own, 0) + 0.5) / (totals[owners] + 1.0)
        np.maximum.at(unusual, owners, -np.log(np.minimum(share, 1)))
        unusual[totals == 0] = 0
        for kind in np.unique(kinds).tolist():
            of_kind = np.flatnonzero(kinds == kind)
            for habit, count in self._habits.get(kind, ()):
                lacking = _lacking(of_kind, owners[has == habit], len(kinds))
                if len(lacking):
                    total = int(totals[lacking[0]])
                    surprise = -np.log((max(total - count, 0) + 0.5) / (total + 1.0))
                    missing[lacking] = np.maximum(missing[lacking], surprise)
        return unusual, missing


def _lacking(of_kind: Indices, having: Indices, count: int) -> Indices:
    has = np.zeros(count, np.bool_)
    has[having] = True
    return of_kind[~has[of_kind]]


def _pair(kinds: npt.NDArray[np.uint64], has: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    return kinds << np.uint64(32) | has


def _calls(traces: Traces) -> tuple[npt.NDArray[np.uint64], Indices, npt.NDArray[np.uint64]]:
    """The keys of spans, and distinct pairs of a span and the key of one that it called."""
    keys = traces.spans["key"].astype(np.uint64)
    children = np.flatnonzero(traces.parents >= 0)
    return keys, *_distinct(traces.parents[children], keys[children])


def _members(traces: Traces) -> tuple[npt.NDArray[np.uint64], Indices, npt.NDArray[np.uint64]]:
    """The keys of roots, and distinct pairs of a trace and a key in it."""
    return _root_keys(traces), *_distinct(traces.trace, traces.spans["key"].astype(np.uint64))


def _distinct(owners: Indices, has: npt.NDArray[np.uint64]) -> tuple[Indices, npt.NDArray[np.uint64]]:
    pairs = np.unique(owners.astype(np.uint64) << np.uint64(32) | has)
    return (pairs >> np.uint64(32)).astype(np.int64), pairs & np.uint64(0xFFFFFFFF)


def _root_keys(traces: Traces) -> npt.NDArray[np.uint64]:
    found: npt.NDArray[np.uint64] = traces.spans["key"][traces.roots].astype(np.uint64)
    return found


def _sets(traces: Traces) -> npt.NDArray[np.uint64]:
    """(traces,) a hash of the set of keys in each, whatever their order."""
    trace, keys = _distinct(traces.trace, traces.spans["key"].astype(np.uint64))
    mixed = (keys + np.uint64(1)) * _ODD
    mixed = (mixed ^ (mixed >> _SHIFT)) * _ODDER
    found: npt.NDArray[np.uint64] = np.add.reduceat(
        mixed ^ (mixed >> _SHIFT), np.searchsorted(trace, np.arange(len(traces)))
    )
    return found
