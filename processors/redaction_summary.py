"""The attributes by which ``redaction`` says what it did: how many keys, and with ``debug`` which.

What was removed or masked adds to what a processor before it has counted; what is allowed or ignored is counted anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from .redaction_rules import Fate
from .values import Attributes

#: what cannot be found out again later
_EVENTS: Final = frozenset({Fate.REDACTED, Fate.MASKED})


def sum_up(
    attributes: Attributes,
    done: Mapping[Fate, Sequence[str]],
    names: Mapping[Fate, tuple[str, str]],
    with_keys: bool,
) -> None:
    """Put it into the attributes. done: the keys by what became of them."""
    for fate, (keys_name, count_name) in names.items():
        keys = done.get(fate, ())
        if keys:
            _add(attributes, keys, keys_name if with_keys else "", count_name, fate in _EVENTS)
        elif fate not in _EVENTS:
            for name in filter(None, (keys_name, count_name)):
                attributes.pop(name, None)


def _add(attributes: Attributes, keys: Sequence[str], keys_name: str, count_name: str, adds: bool) -> None:
    count = len(keys)
    if keys_name:
        before = attributes.get(keys_name) if adds else None
        earlier = before.split(",") if isinstance(before, str) and before else []
        attributes[keys_name] = ",".join(sorted([*keys, *earlier]))
    if adds:
        earlier_count = attributes.get(count_name)
        count += earlier_count if type(earlier_count) is int else 0
    attributes[count_name] = count
