"""The matches of :mod:`.matching` in spans in columns: a mask of the spans that match."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from .. import __version__
from ..pipeline.otlp_fields import SCOPE_NAME
from ..pipeline.spans import ResourceTable, SpanBatch
from .matching import Match, kind_name
from .span_columns import FragmentFacts, Rows, SpanAttribute, once_each
from .values import Value, readable


class ColumnMatch:
    def __init__(self, match: Match) -> None:
        self._match = match
        self._resources: WeakKeyDictionary[ResourceTable, Rows] = WeakKeyDictionary()
        self._names = FragmentFacts(self._name)
        self._attributes = [(SpanAttribute(key), matches) for key, matches in match.attributes.by_key]
        self._kinds = np.array([match.kinds is None or match.kinds(kind_name(kind)) for kind in range(256)], np.bool_)

    def rows(self, batch: SpanBatch) -> Rows:
        if not self._match.scope(SCOPE_NAME, __version__):
            return np.zeros(len(batch), np.bool_)
        rows: Rows = self._of_resources(batch.resources)[batch.resource] & self._kinds[batch.kind]
        if self._match.names is not None:
            rows &= self._named(batch)
        for attribute, matches in self._attributes:
            if rows.any():
                found = once_each(attribute.values(batch), partial(_has, matches))
                rows &= found.astype(np.bool_)
        return rows

    def _of_resources(self, table: ResourceTable) -> Rows:
        known = self._resources.get(table, np.empty(0, np.bool_))
        if len(known) < len(table):
            new = [self._match.resource(readable(resource.items())) for resource in table.resources[len(known) :]]
            self._resources[table] = known = np.concatenate((known, np.array(new, np.bool_)))
        return known

    def _named(self, batch: SpanBatch) -> Rows:
        found = np.zeros(len(batch), np.bool_)
        for column in batch.fragments:
            facts = self._names.of(column)
            if facts is not None:
                found |= facts == True  # noqa: E712 - by element
        return found

    def _name(self, fragment: Any) -> bool | None:
        """Whether it names a span so that it matches; None if it names none."""
        names = self._match.names
        if fragment.name is None or names is None:
            return None
        return names(fragment.name.encode("utf-8", "replace").decode())


def _has(matches: Callable[[Value], bool], value: Value) -> bool:
    return value is not None and matches(value)
