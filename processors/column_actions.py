"""The actions of :mod:`.attribute_actions`, done to spans in columns.

Setting a value that is the same for all, and removing, touch no span singly; what depends on a value is done once a distinct
value of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, cast

import numpy as np

from ..pipeline.spans import AttributeValue, Fragment, SpanBatch
from .attribute_actions import Action, Alter, Assign, Delete, Extract, matching
from .span_columns import (
    Constant,
    FragmentChanges,
    FragmentFacts,
    Rows,
    SpanAttribute,
    fragment_keys,
    keys_of,
    once_each,
    remove,
    without,
)

#: keys by pattern whose facts are remembered; then all are forgotten
_KEYS: Final = 256


class ColumnAction(Protocol):
    def applied(self, batch: SpanBatch, rows: Rows) -> SpanBatch:
        """The batch with the action done to these spans."""


class AssignColumns:
    def __init__(self, action: Assign) -> None:
        self._action = action
        self._attribute = SpanAttribute(action.key)
        self._source = SpanAttribute(action.source) if action.source else None
        self._constant = Constant(action.key, cast(AttributeValue, action.value))

    def applied(self, batch: SpanBatch, rows: Rows) -> SpanBatch:
        present = self._attribute.present(batch)
        chosen = rows & np.where(present, self._action.present, self._action.missing)
        if self._source is None:
            return self._constant_set(batch, chosen, present)
        values = self._source.values(batch)
        missing = values == None  # noqa: E711 - by element
        default = self._action.value
        if default is not None:
            batch = self._constant_set(batch, chosen & missing, present)
        chosen &= ~missing
        if not chosen.any():
            return batch
        return self._attribute.stored(batch, np.where(chosen, values, self._attribute.values(batch)))

    def _constant_set(self, batch: SpanBatch, chosen: Rows, present: Rows) -> SpanBatch:
        if not chosen.any():
            return batch
        return self._constant.added(self._attribute.removed(batch, chosen & present), chosen)


class DeleteColumns:
    def __init__(self, action: Delete) -> None:
        self._action = action
        self._fragments = FragmentChanges(self._without)

    def applied(self, batch: SpanBatch, rows: Rows) -> SpanBatch:
        return remove(batch, rows, self._chosen, self._fragments) if rows.any() else batch

    def _without(self, fragment: Fragment) -> Fragment:
        return without(fragment, self._chosen)

    def _chosen(self, key: str) -> bool:
        return bool(matching(self._action, (key.encode("utf-8", "replace").decode(),)))


class AlterColumns:
    def __init__(self, action: Alter) -> None:
        self._action = action
        self._keys = FragmentFacts(fragment_keys)
        self._attributes: dict[str, SpanAttribute] = {}

    def applied(self, batch: SpanBatch, rows: Rows) -> SpanBatch:
        keys = [self._action.key] if self._action.pattern is None else keys_of(batch, self._keys)
        for key in matching(self._action, keys):
            attribute = self._attribute(key)
            values = attribute.values(batch)
            chosen = rows & (values != None)  # noqa: E711 - by element
            if chosen.any():
                values[chosen] = once_each(values[chosen], self._action.change)
                batch = attribute.stored(batch, values)
        return batch

    def _attribute(self, key: str) -> SpanAttribute:
        if key not in self._attributes and len(self._attributes) >= _KEYS:
            self._attributes.clear()
        return self._attributes.setdefault(key, SpanAttribute(key))


class ExtractColumns:
    def __init__(self, action: Extract) -> None:
        self._action = action
        self._source = SpanAttribute(action.key)
        self._targets = [SpanAttribute(name) for name in action.names]

    def applied(self, batch: SpanBatch, rows: Rows) -> SpanBatch:
        parts = once_each(self._source.values(batch), self._action.parts)
        found = rows & (parts != None)  # noqa: E711 - by element
        if not found.any():
            return batch
        for index, target in enumerate(self._targets):
            values = target.values(batch)
            for row in np.flatnonzero(found).tolist():
                values[row] = parts[row][index]
            batch = target.stored(batch, values)
        return batch


_COLUMNS: Final[Mapping[type, Callable[[Any], ColumnAction]]] = {
    Assign: AssignColumns,
    Delete: DeleteColumns,
    Alter: AlterColumns,
    Extract: ExtractColumns,
}


def column_action(action: Action) -> ColumnAction:
    return _COLUMNS[type(action)](action)
