"""``redaction`` of spans in columns: a fragment is looked at once, a column of numbers by its key alone unless values of all types
are asked for, and of texts each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final, NamedTuple, cast

import numpy as np

from ..pipeline.spans import AttributeValue, Fragment, FragmentColumn, FragmentTable, SpanBatch, is_present
from .redaction_rules import SUMMARY, SUMMARY_KEYS, Fate, Rules
from .redaction_summary import sum_up
from .span_columns import FragmentChanges, FragmentFacts, SpanAttribute, Values, objects, once_each
from .values import Attributes, Value, readable

#: different summaries whose fragments are kept; then there is a new table
_SUMMARIES: Final = 4_096
#: keys of columns whose facts are remembered; then all are forgotten
_KEYS: Final = 256
_AS_IT_WAS: Final = object()


class Done(NamedTuple):
    """What was done within a part of a span. fates: with the keys. before: attributes that sum up what was done earlier."""

    fates: tuple[tuple[Fate, str], ...]
    before: tuple[tuple[str, AttributeValue], ...] = ()


class ColumnRedaction:
    def __init__(self, rules: Rules, summary: str) -> None:
        self._rules = rules
        self._sums_up, self._with_keys = summary != "silent", summary == "debug"
        self._changes = FragmentChanges(lambda fragment: self._looked_at(fragment)[0])
        self._facts = FragmentFacts(lambda fragment: self._looked_at(fragment)[1])
        self._attributes: dict[str, SpanAttribute] = {}
        self._forget_summaries()

    def redacted(self, batch: SpanBatch) -> SpanBatch:
        everywhere = np.ones(len(batch), np.bool_)
        done = [self._facts.of(column) for column in batch.fragments] if self._sums_up else []
        fragments = tuple(self._changes.of(column, everywhere) for column in batch.fragments)
        keys = dict.fromkeys((*batch.numbers, *batch.texts))
        batch = replace(batch, fragments=fragments)
        for key in keys:
            batch, of_column = self._column(batch, key)
            done.append(of_column)
        return self._summed_up(batch, [values for values in done if values is not None])

    def redact_mapping(self, attributes: Attributes) -> None:
        """Likewise of a resource, in place."""
        done: dict[Fate, list[str]] = defaultdict(list)
        had = bool(attributes)
        for key, value in list(attributes.items()):
            fate, masked = self._rules.attribute(key, self._rules.text(value))
            if fate is not Fate.KEPT:
                done[fate].append(key)
            if fate is Fate.REDACTED:
                del attributes[key]
            elif fate is Fate.MASKED:
                attributes[key] = masked
        if self._sums_up and had:
            sum_up(attributes, done, SUMMARY, self._with_keys)

    def _looked_at(self, fragment: Fragment) -> tuple[Fragment, Done | None]:
        """What it becomes, without what sums up, and what was done."""
        kept: list[tuple[str, Any]] = []
        fates: list[tuple[Fate, str]] = []
        before: list[tuple[str, Any]] = []
        for key, value in readable(fragment.attributes).items():
            fate, masked = self._rules.attribute(key, self._rules.text(value))
            if self._sums_up and key in SUMMARY_KEYS:
                before.append((key, value))
                continue
            if fate is not Fate.KEPT:
                fates.append((fate, key))
            if fate is not Fate.REDACTED:
                kept.append((key, masked if fate is Fate.MASKED else value))
        done = Done(tuple(fates), tuple(before)) if fates or before else None
        changed = any(fate in (Fate.REDACTED, Fate.MASKED) for fate, _ in fates) or bool(before)
        return (replace(fragment, attributes=tuple(kept)) if changed else fragment), done

    def _column(self, batch: SpanBatch, key: str) -> tuple[SpanBatch, Values | None]:
        """Of one key that is in a column of its own."""
        attribute = self._attribute(key)
        if not self._rules.all_types and key not in batch.texts and key not in SUMMARY_KEYS:
            # Numbers are no text to look at, so the key alone decides.
            judgement = self._judged(key, 0)
            if judgement is None:
                return batch, None
            judged = objects([None, judgement])[is_present(batch.numbers[key]).astype(np.int64)]
        else:
            judged = once_each(attribute.column_values(batch), partial(self._judged, key))
        return self._done(batch, attribute, judged)

    def _done(self, batch: SpanBatch, attribute: SpanAttribute, judged: Values) -> tuple[SpanBatch, Values]:
        done: Values = np.full(len(batch), None, object)
        changed: dict[int, str | None] = {}
        for row in np.flatnonzero(judged != None).tolist():  # noqa: E711 - by element
            done[row], after = judged[row]
            if after is not _AS_IT_WAS:
                changed[row] = after
        if changed:
            values = attribute.values(batch)
            for row, after in changed.items():
                values[row] = after
            batch = attribute.stored(batch, values)
        return batch, done

    def _judged(self, key: str, value: Value) -> tuple[Done, Any] | None:
        """What was done to it, and its value then, which is None if it was removed. None if there was nothing to do."""
        if value is None:
            return None
        if self._sums_up and key in SUMMARY_KEYS:
            return Done((), ((key, cast(AttributeValue, value)),)), None
        fate, masked = self._rules.attribute(key, self._rules.text(value))
        if fate is Fate.KEPT:
            return None
        after = {Fate.MASKED: masked, Fate.REDACTED: None}.get(fate, _AS_IT_WAS)
        return Done(((fate, key),)), after

    def _attribute(self, key: str) -> SpanAttribute:
        if key not in self._attributes and len(self._attributes) >= _KEYS:
            self._attributes.clear()
        return self._attributes.setdefault(key, SpanAttribute(key))

    def _summed_up(self, batch: SpanBatch, done: Sequence[Values]) -> SpanBatch:
        if not self._sums_up or not done:
            return batch
        if self._summaries.full:
            self._forget_summaries()
        parts = zip(*(values.tolist() for values in done), strict=True)
        ids = np.array([self._summary(tuple(part)) for part in parts], np.int64)
        return replace(batch, fragments=(*batch.fragments, FragmentColumn(self._summaries, ids)))

    def _summary(self, parts: tuple[Done | None, ...]) -> int:
        """The index of the fragment that sums these up."""
        found = self._known.get(parts)
        if found is None:
            attributes: Attributes = {}
            done: dict[Fate, list[str]] = defaultdict(list)
            for part in parts:
                for fate, key in part.fates if part else ():
                    done[fate].append(key)
                attributes.update(part.before if part else ())
            sum_up(attributes, done, SUMMARY, self._with_keys)
            found = self._known[parts] = len(self._summaries)
            items: Any = tuple(attributes.items())
            self._summaries.fragments.append(Fragment(attributes=items))
        return found

    def _forget_summaries(self) -> None:
        self._summaries = FragmentTable(_SUMMARIES)
        self._known: dict[tuple[Done | None, ...], int] = {}
