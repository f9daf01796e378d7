"""What is found of a span, written into it: into a message of protobuf, or an object of JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

SCORE: Final = "wirespan.anomaly.score"
ANOMALY: Final = "wirespan.anomaly"
DRIVERS: Final = "wirespan.anomaly.drivers"
STATE: Final = "wirespan.anomaly.state"
LEARNING: Final = "learning"

_OURS: Final = frozenset({SCORE, ANOMALY, DRIVERS, STATE})


def mark(span: Any, score: float | None, is_anomaly: bool, drivers: str) -> None:
    """score: None while it is not known what is normal. What others said of the same is replaced."""
    found = dict(_found(score, is_anomaly, drivers))
    if isinstance(span, dict):
        _mark_object(span, found)
    else:
        _mark_message(span, found)


def _found(score: float | None, is_anomaly: bool, drivers: str) -> Iterator[tuple[str, bool | float | str]]:
    if score is None:
        yield STATE, LEARNING
        return
    yield SCORE, score
    yield ANOMALY, is_anomaly
    if drivers:
        yield DRIVERS, drivers


def _mark_object(span: dict[str, Any], found: dict[str, bool | float | str]) -> None:
    kept = [attribute for attribute in span.get("attributes", ()) if attribute["key"] not in _OURS]
    for key, value in found.items():
        kind = "boolValue" if isinstance(value, bool) else "doubleValue" if isinstance(value, float) else "stringValue"
        kept.append({"key": key, "value": {kind: value}})
    span["attributes"] = kept


def _mark_message(span: Any, found: dict[str, bool | float | str]) -> None:
    attributes = span.attributes
    for at in range(len(attributes) - 1, -1, -1):
        if attributes[at].key in _OURS:
            del attributes[at]
    for key, value in found.items():
        added = attributes.add(key=key).value
        if isinstance(value, bool):
            added.bool_value = value
        elif isinstance(value, float):
            added.double_value = value
        else:
            added.string_value = value
