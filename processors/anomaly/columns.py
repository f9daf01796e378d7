"""Spans in columns, as a model wants them. What repeats, names and resources, is looked at once a table.

A span's key is a number of 63 bits made of what its fragments, its resource and its columns say; only numbers that were not seen
before are looked up as identities.
"""

from __future__ import annotations

from typing import Any, Final
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from ...pipeline.spans import Fragment, FragmentColumn, FragmentTable, ResourceTable, SpanBatch, StatusCode
from .features import DURATION, FEATURES, STEPS_A_SECOND, Observations, Rows, Values, values_of
from .keys import Identity, KeyTable, template
from .otlp_spans import COLUMNS, protocol_of, service_of, weight_of

#: texts and keys that are remembered; then all are looked at anew
KEYS_REMEMBERED: Final = 65_536
_NAME_BITS, _PROTOCOL_BITS, _KIND_BITS, _PORT_BITS = 18, 10, 3, 16
_NONE: Final = 0


class _Told:
    """What the fragments of a table say, each: numbers of texts, whether it failed, what it stands for."""

    def __init__(self) -> None:
        self.names: list[int] = []
        self.protocols: list[int] = []
        self.errors: list[bool] = []
        self.weights: list[float] = []

    def arrays(self) -> tuple[npt.NDArray[Any], ...]:
        return np.array(self.names), np.array(self.protocols), np.array(self.errors), np.array(self.weights)


class ColumnReader:
    """keys: rows of new operations are added to it. Not thread-safe."""

    def __init__(self, keys: KeyTable) -> None:
        self._keys = keys
        self._forget()

    def _forget(self) -> None:
        self._texts: dict[str, int] = {"": _NONE}
        self._words: list[str] = [""]
        self._rows: dict[int, int] = {}
        self._told: WeakKeyDictionary[FragmentTable, _Told] = WeakKeyDictionary()
        self._services: WeakKeyDictionary[ResourceTable, list[int]] = WeakKeyDictionary()

    def observations(self, batch: SpanBatch) -> Observations:
        if len(self._words) > KEYS_REMEMBERED or len(self._rows) > KEYS_REMEMBERED:
            self._forget()
        names = protocols = np.zeros(len(batch), np.int64)
        errors, weights = np.zeros(len(batch), np.bool_), np.ones(len(batch))
        for column in batch.fragments:
            said = [array[column.ids] for array in self._of_fragments(column)]
            names, protocols = np.maximum(names, said[0]), np.maximum(protocols, said[1])
            errors, weights = errors | said[2], np.maximum(weights, said[3])
        rows = self._rows_of(batch, names, protocols)
        return Observations(rows, _values(batch), errors, weights.astype(np.float32))

    def _rows_of(self, batch: SpanBatch, names: npt.NDArray[np.int64], protocols: npt.NDArray[np.int64]) -> Rows:
        ports = batch.numbers.get("server.port")
        port = np.zeros(len(batch), np.int64) if ports is None else np.maximum(ports, 0).astype(np.int64)
        codes = np.array(self._of_resources(batch.resources), np.int64)[batch.resource]
        parts = ((port, _PORT_BITS), (batch.kind, _KIND_BITS), (protocols, _PROTOCOL_BITS), (names, _NAME_BITS))
        for part, bits in parts:
            codes = codes << bits | (part & (1 << bits) - 1)
        unique, where = np.unique(codes, return_inverse=True)
        found = np.array([self._row(code) for code in unique.tolist()], np.int32)
        return found[where]

    def _row(self, code: int) -> int:
        row = self._rows.get(code)
        if row is None:
            parts = []
            rest = code
            for bits in (_NAME_BITS, _PROTOCOL_BITS, _KIND_BITS, _PORT_BITS):
                parts.append(rest & (1 << bits) - 1)
                rest >>= bits
            name, protocol, kind, port = parts
            identity = Identity(self._words[rest], kind, port, self._words[protocol], template(self._words[name]))
            row = self._rows[code] = self._keys.row(identity)
        return row

    def _of_fragments(self, column: FragmentColumn) -> tuple[npt.NDArray[Any], ...]:
        told = self._told.setdefault(column.table, _Told())
        for fragment in column.table.fragments[len(told.names) :]:
            self._look_at(fragment, told)
        return told.arrays()

    def _look_at(self, fragment: Fragment, told: _Told) -> None:
        attributes = dict(fragment.attributes)
        told.names.append(self._text(fragment.name or ""))
        told.protocols.append(self._text(protocol_of(attributes)))
        told.errors.append(fragment.status is StatusCode.ERROR or "error.type" in attributes)
        told.weights.append(weight_of(attributes, fragment.trace_state))

    def _of_resources(self, table: ResourceTable) -> list[int]:
        services = self._services.setdefault(table, [])
        services += [self._text(service_of(attributes)) for attributes in table.resources[len(services) :]]
        return services

    def _text(self, text: str) -> int:
        number = self._texts.get(text)
        if number is None:
            number = self._texts[text] = len(self._words)
            self._words.append(text)
        return number


def _values(batch: SpanBatch) -> Values:
    values = np.full((len(batch), len(FEATURES)), np.nan, np.float32)
    length = (batch.end - batch.start).astype(np.int64)  # of one that ends before it begins, negative
    values[:, DURATION] = values_of(length / (1e9 / STEPS_A_SECOND))
    for at, name in enumerate(COLUMNS):
        column = batch.numbers.get(name) if name else None
        if column is not None:
            values[:, at] = values_of(column * (STEPS_A_SECOND if FEATURES[at].unit == "s" else 1.0))
    return values
