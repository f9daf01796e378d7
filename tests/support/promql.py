"""What an expression in OpenTelemetry's names is about; see support/spellings.py for how these are written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_SELECTOR = re.compile(r'\{"(?P<metric>[^"]+)"(?:, (?P<matchers>[^}]*))?\}')
_MATCHER = re.compile(r"\"?(?P<label>[\w.]+)\"?(?P<operator>=~|!~|!=|=)'(?P<value>[^']*)'")
_GROUPING = re.compile(r"\b(?:by|on|group_left) \(([^)]*)\)")
_PLAIN = re.compile(r"\b(?:[a-z]+:\w+:\w+|target_info)\b")


class Names(NamedTuple):
    """metrics: those not in quotes. labels: those that series are grouped or joined by."""

    metrics: set[str]
    labels: set[str]


def matchers(expression: str) -> Iterator[tuple[str, list[tuple[str, list[str]]]]]:
    """Each metric in quotes, with its labels and what each is compared with, alternatives apart."""
    for selector in _SELECTOR.finditer(expression):
        found = _MATCHER.finditer(selector["matchers"] or "")
        compared = [(one["label"], [value for value in one["value"].split("|") if value]) for one in found]
        yield selector["metric"], compared


def names(expression: str) -> Names:
    labels = [label.strip(' "\n') for grouping in _GROUPING.findall(expression) for label in grouping.split(",")]
    return Names(set(_PLAIN.findall(expression)), {label for label in labels if label})
