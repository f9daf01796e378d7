"""What the processors ``resource`` and ``attributes`` do with attributes: the actions of the Collector's processors.

An action changes a mapping, whatever is behind it: a resource, or the attributes of a message of OTLP. How the same is done to
spans in columns is in :mod:`.span_columns`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated, Any, Final, Literal, Self, TypeAlias

from pydantic import BeforeValidator, Field, StrictBool, StrictFloat, StrictInt, StrictStr, model_validator

from ..pipeline.component import ComponentConfig
from .patterns import Pattern, compiled, group_names
from .values import Attributes, Value, as_double, as_integer, as_text

#: of an attribute, in YAML
Scalar: TypeAlias = StrictStr | StrictBool | Annotated[StrictInt, Field(ge=-(2**63), lt=2**63)] | StrictFloat
SetValue: TypeAlias = Scalar | list[Scalar]

ActionName: TypeAlias = Annotated[
    Literal["insert", "update", "upsert", "delete", "hash", "extract", "convert"],
    BeforeValidator(lambda name: name.lower() if isinstance(name, str) else name),
]

#: keys that an action takes, beside ``key`` and ``action``
_ASSIGNING: Final = frozenset({"value", "from_attribute", "default_value"})
_TAKEN: Final[Mapping[str, frozenset[str]]] = {
    "insert": _ASSIGNING,
    "update": _ASSIGNING,
    "upsert": _ASSIGNING,
    "delete": frozenset({"pattern"}),
    "hash": frozenset({"pattern"}),
    "extract": frozenset({"pattern"}),
    "convert": frozenset({"converted_type"}),
}


class ActionSettings(ComponentConfig):
    """One action. Which keys it takes depends on ``action``."""

    key: str = ""
    action: ActionName
    value: SetValue | None = None
    from_attribute: str = ""
    default_value: SetValue | None = None
    pattern: Pattern = ""
    converted_type: Literal["int", "double", "string"] | None = None

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Self:
        problems = [*self._missing(), *self._too_much()]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _missing(self) -> list[str]:
        missing = []
        if self.action in ("delete", "hash"):
            if not self.key and not self.pattern:
                missing.append(f"{self.action} needs key or pattern")
        elif not self.key:
            missing.append(f"{self.action} needs key")
        if _TAKEN[self.action] is _ASSIGNING and not (self._given & _ASSIGNING):
            missing.append(f"{self.action} needs value, from_attribute or default_value")
        if self.action == "extract" and (not self.pattern or None in (group_names(self.pattern) or [None])):
            missing.append("extract needs a pattern, all of whose groups are named: (?P<name>…)")
        if self.action == "convert" and self.converted_type is None:
            missing.append("convert needs converted_type")
        return missing

    def _too_much(self) -> list[str]:
        unused = sorted(self._given - _TAKEN[self.action])
        problems = [f"{self.action} does not use {', '.join(unused)}"] if unused else []
        if {"value", "from_attribute"} <= self._given:
            problems.append("value and from_attribute exclude each other")
        return problems

    @property
    def _given(self) -> set[str]:
        """Keys that say something, of those that not every action takes."""
        given = {name for name in ("value", "default_value", "converted_type") if getattr(self, name) is not None}
        return given | {name for name in ("from_attribute", "pattern") if getattr(self, name)}


Change: TypeAlias = Callable[[Value], Value]


@dataclass(frozen=True, slots=True)
class Assign:
    """Insert, update, upsert. missing, present: whether an attribute is set that is not there, that is."""

    key: str
    missing: bool
    present: bool
    value: Value
    source: str

    def apply(self, attributes: Attributes) -> None:
        value = self.value
        if self.source and self.source in attributes:
            value = attributes[self.source]
        elif self.source and value is None:
            return
        if self.present if self.key in attributes else self.missing:
            attributes[self.key] = value


@dataclass(frozen=True, slots=True)
class Delete:
    """pattern: RE2; of keys that go, too."""

    key: str
    pattern: Any

    def apply(self, attributes: Attributes) -> None:
        for key in matching(self, attributes):
            attributes.pop(key, None)


@dataclass(frozen=True, slots=True)
class Alter:
    """Hash, convert: each value becomes another one."""

    key: str
    pattern: Any
    change: Change

    def apply(self, attributes: Attributes) -> None:
        for key in matching(self, attributes):
            attributes[key] = self.change(attributes[key])


@dataclass(frozen=True, slots=True)
class Extract:
    """names: of the groups, in order."""

    key: str
    pattern: Any
    names: tuple[str, ...]

    def apply(self, attributes: Attributes) -> None:
        found = self.parts(attributes.get(self.key))
        if found is not None:
            attributes.update(zip(self.names, found, strict=True))

    def parts(self, value: Value) -> tuple[str, ...] | None:
        """What the groups matched, None if the pattern is not found."""
        found = self.pattern.search(value) if isinstance(value, str) else None
        return None if found is None else tuple(part or "" for part in found.groups())


Action: TypeAlias = Assign | Delete | Alter | Extract


def matching(action: Delete | Alter, keys: Any) -> list[str]:
    """Of these keys those that the action is about. One that is named and matches the pattern, too, is twice."""
    found = [action.key] if action.key in keys else []
    if action.pattern is not None:
        found += [key for key in keys if action.pattern.search(key)]
    return found


def hashed(value: Value) -> str:
    """SHA-256 in hex, of text as UTF-8, of numbers as little endian; nothing of other values. As the Collector does it."""
    match value:
        case str():
            encoded = value.encode()
        case bool():
            encoded = bytes([value])
        case int():
            encoded = struct.pack("<q", value)
        case float():
            encoded = struct.pack("<d", value)
        case _:
            return ""
    return sha256(encoded).hexdigest()


_CONVERSIONS: Final[Mapping[str, Change]] = {"int": as_integer, "double": as_double, "string": as_text}


def actions_of(settings: Sequence[ActionSettings]) -> list[Action]:
    return [_action(one) for one in settings]


def _action(settings: ActionSettings) -> Action:
    pattern = compiled(settings.pattern) if settings.pattern else None
    match settings.action:
        case "delete":
            return Delete(settings.key, pattern)
        case "hash":
            return Alter(settings.key, pattern, hashed)
        case "convert":
            return Alter(settings.key, None, _CONVERSIONS[str(settings.converted_type)])
        case "extract":
            return Extract(settings.key, pattern, tuple(map(str, group_names(settings.pattern))))
        case name:
            value = settings.value if settings.value is not None else settings.default_value
            fixed = tuple(value) if isinstance(value, list) else value
            return Assign(settings.key, name != "update", name != "insert", fixed, settings.from_attribute)
