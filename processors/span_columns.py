"""Attributes of spans in columns: read, removed and set for many spans at once.

An attribute of a span may be in a column of numbers, in one of texts, or in any of its fragments. What is said of fragments is
found out once a fragment and then taken by index, and so is what a fragment becomes. Only values
that have to be looked at singly (to hash them, say) become Python objects; ``None`` then means absent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Final, TypeAlias
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from ..pipeline.spans import (
    AttributeValue,
    Fragment,
    FragmentColumn,
    FragmentTable,
    NumberArray,
    SpanBatch,
    TextColumn,
    is_present,
)
from .values import readable

Rows: TypeAlias = npt.NDArray[np.bool_]
Values: TypeAlias = npt.NDArray[np.object_]

#: entries of a table of values of our own; then there is a new one
_TABLE: Final = 4_096


class FragmentFacts:
    """Something that is read of each fragment, once. read: what is None is what most fragments say."""

    def __init__(self, read: Callable[[Fragment], Any]) -> None:
        self._read = read
        self._known: WeakKeyDictionary[FragmentTable, Values] = WeakKeyDictionary()

    def of(self, column: FragmentColumn) -> Values | None:
        """Of each span; None if it is None for all fragments."""
        known = self._known.get(column.table)
        count = 0 if known is None else len(known)
        if known is None or count < len(column.table):
            new = objects([self._read(fragment) for fragment in column.table.fragments[count:]])
            self._known[column.table] = known = new if known is None else np.concatenate((known, new))
        if not len(known) or not (known != None).any():  # noqa: E711 - by element
            return None
        return known[column.ids]


class FragmentChanges:
    """Fragments that become others, in some spans. change: returns the same object if there is nothing to change."""

    def __init__(self, change: Callable[[Fragment], Fragment]) -> None:
        self._change = change
        self._tables: WeakKeyDictionary[FragmentTable, _Changed] = WeakKeyDictionary()

    def of(self, column: FragmentColumn, rows: Rows) -> FragmentColumn:
        """The column with the fragments of these rows changed; the same if that changes none."""
        changed = self._tables.get(column.table)
        if changed is None:
            changed = self._tables[column.table] = _Changed(column.table.limit)
        changed.extend(column.table.fragments, self._change)
        touched = rows & changed.differs[column.ids]
        if not touched.any():
            return column
        return changed.column(column, touched)


class _Changed:
    """What the fragments of a table become. Of those that are in use together, as they are and as they become, there is a
    table of its own, so that a chain of changes does not double it each time."""

    def __init__(self, limit: int) -> None:
        self.differs: Rows = np.empty(0, np.bool_)
        self._became: list[Fragment] = []
        self._table = FragmentTable(2 * limit)
        self._ids: npt.NDArray[np.int64] = np.empty(0, np.int64)  # 2 i: of fragment i, 2 i + 1: of what it becomes

    def extend(self, fragments: list[Fragment], change: Callable[[Fragment], Fragment]) -> None:
        known = len(self._became)
        new = fragments[known:]
        if new:
            self._became += map(change, new)
            differ = [fragment is not other for fragment, other in zip(new, self._became[known:], strict=True)]
            self.differs = np.concatenate((self.differs, np.array(differ, np.bool_)))
            self._ids = np.concatenate((self._ids, np.full(2 * len(new), -1, np.int64)))

    def column(self, column: FragmentColumn, touched: Rows) -> FragmentColumn:
        wanted = 2 * column.ids + touched
        ids = self._ids[wanted]
        if (ids < 0).any():
            for number in np.unique(wanted[ids < 0]).tolist():
                index, after = divmod(number, 2)
                self._ids[number] = len(self._table)
                self._table.fragments.append(self._became[index] if after else column.table.fragments[index])
            ids = self._ids[wanted]
        return FragmentColumn(self._table, ids)


class SpanAttribute:
    """One attribute, in any batch."""

    def __init__(self, key: str) -> None:
        self.key = key
        self._facts = FragmentFacts(lambda fragment: readable(fragment.attributes).get(key))
        self._without = FragmentChanges(lambda fragment: without(fragment, lambda other: other == key))
        self._interned = _Interned(key)

    def present(self, batch: SpanBatch) -> Rows:
        found = np.zeros(len(batch), np.bool_)
        if self.key in batch.numbers:
            found |= is_present(batch.numbers[self.key])
        if self.key in batch.texts:
            found |= batch.texts[self.key].lengths >= 0
        for column in batch.fragments:
            facts = self._facts.of(column)
            if facts is not None:
                found |= facts != None  # noqa: E711 - by element
        return found

    def values(self, batch: SpanBatch) -> Values:
        """Of each span."""
        values = self.column_values(batch)
        for fragments in batch.fragments:
            facts = self._facts.of(fragments)
            if facts is not None:
                values = np.where(facts != None, facts, values)  # noqa: E711 - by element
        return values

    def column_values(self, batch: SpanBatch) -> Values:
        """Likewise without what is in fragments."""
        values: Values = np.full(len(batch), None, object)
        if self.key in batch.numbers:
            column = batch.numbers[self.key]
            rows = is_present(column)
            values[rows] = column[rows].astype(object)
        text = batch.texts.get(self.key)
        if text is not None:
            for row in np.flatnonzero(text.lengths >= 0).tolist():
                values[row] = text.text(row)
        return values

    def removed(self, batch: SpanBatch, rows: Rows) -> SpanBatch:
        """The batch without it in these rows."""
        if not rows.any():
            return batch
        return remove(batch, rows, lambda key: key == self.key, self._without)

    def stored(self, batch: SpanBatch, values: Values) -> SpanBatch:
        """The batch with these values of it, and no others."""
        batch = self.removed(batch, np.ones(len(batch), np.bool_))
        numbers, texts, fragments = dict(batch.numbers), dict(batch.texts), batch.fragments
        rest = values.copy()
        text = _texts(rest)
        if text is not None:
            texts[self.key] = text
        number = _numbers(rest)
        if number is not None:
            numbers[self.key] = number
        if (rest != None).any():  # noqa: E711 - by element
            fragments = (*fragments, self._interned.column(rest.tolist()))
        return replace(batch, numbers=numbers, texts=texts, fragments=fragments)


class Constant:
    """An attribute of one value, for spans that get it."""

    def __init__(self, key: str, value: AttributeValue) -> None:
        self._table = FragmentTable()
        self._table.fragments += (Fragment(), Fragment(attributes=((key, value),)))

    def added(self, batch: SpanBatch, rows: Rows) -> SpanBatch:
        column = FragmentColumn(self._table, rows.astype(np.int64))
        return replace(batch, fragments=(*batch.fragments, column))


class _Interned:
    """Values that no column of numbers or texts can hold, as fragments; 0 has none."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._begin()

    def _begin(self) -> None:
        self._table = FragmentTable(_TABLE)
        self._table.fragments.append(Fragment())
        self._ids: dict[str, int] = {}

    def column(self, values: Iterable[Any]) -> FragmentColumn:
        if self._table.full:
            self._begin()
        ids = [0 if value is None else self._id(value) for value in values]
        return FragmentColumn(self._table, np.array(ids, np.int64))

    def _id(self, value: Any) -> int:
        # 1, 1.0 and True, or 0.0 and -0.0, are the same to a dictionary
        known = f"{type(value).__name__}{value!r}"
        found = self._ids.get(known)
        if found is None:
            found = self._ids[known] = len(self._table)
            self._table.fragments.append(Fragment(attributes=((self._key, value),)))
        return found


def keys_of(batch: SpanBatch, facts: FragmentFacts) -> list[str]:
    """All keys that a span of the batch may have, in order. facts: of :func:`fragment_keys`."""
    found = {*batch.numbers, *batch.texts}
    for column in batch.fragments:
        for keys in set(known.tolist()) if (known := facts.of(column)) is not None else ():
            found.update(keys or ())
    return sorted(found)


def fragment_keys(fragment: Fragment) -> tuple[str, ...] | None:
    return tuple(readable(fragment.attributes)) or None


def remove(batch: SpanBatch, rows: Rows, chosen: Callable[[str], bool], fragments: FragmentChanges) -> SpanBatch:
    """The batch without the chosen attributes in these rows. fragments: does so to fragments."""
    everywhere = bool(rows.all())
    numbers, texts = dict(batch.numbers), dict(batch.texts)
    for key in filter(chosen, batch.numbers):
        if everywhere:
            del numbers[key]
        else:
            numbers[key] = _absent_number(numbers[key], rows)
    for key in filter(chosen, batch.texts):
        if everywhere:
            del texts[key]
        else:
            texts[key] = replace(texts[key], lengths=np.where(rows, -1, texts[key].lengths))
    columns = tuple(fragments.of(column, rows) for column in batch.fragments)
    return replace(batch, numbers=numbers, texts=texts, fragments=columns)


def without(fragment: Fragment, chosen: Callable[[str], bool]) -> Fragment:
    kept = tuple(attribute for attribute in fragment.attributes if not chosen(attribute[0]))
    return fragment if len(kept) == len(fragment.attributes) else replace(fragment, attributes=kept)


def once_each(values: Values, change: Callable[[Any], Any]) -> Values:
    """Every value changed, equal ones once. Of other types are other values, though Python takes 1 and True for equal."""
    known: dict[tuple[type, str], Any] = {}
    changed = np.empty(len(values), object)
    for row, value in enumerate(values.tolist()):
        key = (type(value), value if type(value) is str else repr(value))
        if key not in known:
            known[key] = change(value)
        changed[row] = known[key]
    return changed


def objects(values: list[Any]) -> Values:
    """As an array of one dimension, also of tuples."""
    array = np.empty(len(values), object)
    for index, value in enumerate(values):
        array[index] = value
    return array


def _absent_number(column: NumberArray, rows: Rows) -> Any:
    return np.where(rows, np.nan if column.dtype.kind == "f" else -1, column)


def _texts(values: Values) -> TextColumn | None:
    """The texts among the values, which are taken out of them."""
    encoded = [value.encode("utf-8", "replace") if type(value) is str else None for value in values.tolist()]
    lengths = np.array([-1 if text is None else len(text) for text in encoded], np.int64)
    rows = lengths >= 0
    if not rows.any():
        return None
    values[rows] = None
    sizes = np.maximum(lengths, 0)
    data = np.frombuffer(bytearray(b"".join(text for text in encoded if text)), np.uint8)
    return TextColumn(data, np.cumsum(sizes) - sizes, lengths)


def _numbers(values: Values) -> NumberArray | None:
    """The whole numbers among the values, else those with a fraction, as far as a column can hold them; taken out likewise."""
    found = values.tolist()
    integers = np.array([type(value) is int and value >= 0 for value in found], np.bool_)
    if integers.any():
        whole = np.full(len(values), -1, np.int64)
        whole[integers] = values[integers].astype(np.int64)
        values[integers] = None
        return whole
    doubles = np.array([type(value) is float and value == value for value in found], np.bool_)
    if not doubles.any():
        return None
    column = np.full(len(values), np.nan)
    column[doubles] = values[doubles].astype(np.float64)
    values[doubles] = None
    return column
