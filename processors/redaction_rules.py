"""What ``redaction`` does with a key and a value: the rules of the Collector's processor, by attribute.

A key decides first: it is ignored, removed, masked whatever its value, or its value is looked at. A value that an allowed pattern
is found in stays; else every match of a blocked pattern becomes asterisks, or a hash. What a key and a value come to is remembered,
because most are seen again and again.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Annotated, Any, Final, Generic, Literal, Self, TypeAlias, TypeVar

from pydantic import BeforeValidator, Field, model_validator

from ..pipeline.component import ComponentConfig
from .patterns import Pattern, PatternSet
from .values import Value, as_text

Known = TypeVar("Known")

#: keys, and values, that are remembered; then all are forgotten
JUDGEMENTS_KEPT: Final = 16_384
#: length of one that is remembered
LONGEST_JUDGED: Final = 512
_MASK: Final = "****"
#: bytes that a key has at least
_HMAC_KEYS: Final[Mapping[str, int]] = {"hmac-sha256": 32, "hmac-sha512": 64}

HashFunction: TypeAlias = Annotated[
    Literal["", "md5", "sha1", "sha3", "hmac-sha256", "hmac-sha512"],
    BeforeValidator(lambda name: name.lower() if isinstance(name, str) else name),
]


class RedactionSettings(ComponentConfig):
    """allowed_keys: others are removed, unless allow_all_keys. summary: what is said about it in attributes."""

    allow_all_keys: bool = False
    allowed_keys: list[str] = Field(default_factory=list)
    ignored_keys: list[str] = Field(default_factory=list)
    ignored_key_patterns: list[Pattern] = Field(default_factory=list)
    blocked_key_patterns: list[Pattern] = Field(default_factory=list)
    blocked_values: list[Pattern] = Field(default_factory=list)
    allowed_values: list[Pattern] = Field(default_factory=list)
    redact_all_types: bool = False
    hash_function: HashFunction = ""
    hmac_key: str = Field(default="", repr=False)
    masking_string: str = ""
    summary: Literal["debug", "info", "silent"] = "silent"

    @model_validator(mode="after")
    def _masks_in_one_way(self) -> Self:
        problems = []
        least = _HMAC_KEYS.get(self.hash_function, 0)
        if len(self.hmac_key.encode("utf-8", "replace")) < least:
            problems.append(f"hash_function {self.hash_function} needs an hmac_key of at least {least} bytes")
        if self.masking_string and self.hash_function:
            problems.append("masking_string and hash_function exclude each other")
        if problems:
            raise ValueError("; ".join(problems))
        return self


class Fate(Enum):
    """What becomes of an attribute. KEPT: it is what it was."""

    KEPT = "kept"
    IGNORED = "ignored"
    REDACTED = "redacted"
    ALLOWED = "allowed"
    MASKED = "masked"


class _KeyRule(Enum):
    LOOK = "look"
    IGNORE = "ignore"
    REMOVE = "remove"
    MASK = "mask"
    OURS = "ours"


_BY_KEY: Final = {_KeyRule.OURS: Fate.KEPT, _KeyRule.IGNORE: Fate.IGNORED, _KeyRule.REMOVE: Fate.REDACTED}


class _Memory(Generic[Known]):
    """What a function of a text said, for texts that are not too long."""

    def __init__(self, function: Callable[[str], Known]) -> None:
        self._function = function
        self._known: dict[str, Known] = {}

    def __call__(self, text: str) -> Known:
        found = self._known.get(text)
        if found is None:
            found = self._function(text)
            if len(self._known) >= JUDGEMENTS_KEPT:
                self._known.clear()
            if len(text) <= LONGEST_JUDGED:
                self._known[text] = found
        return found


class Rules:
    """Safe from any thread: what one forgets while another remembers is found out again."""

    def __init__(self, settings: RedactionSettings) -> None:
        self._allowed_keys = None if settings.allow_all_keys else frozenset(settings.allowed_keys)
        self._ignored_keys = frozenset(settings.ignored_keys)
        self._ignored_patterns = PatternSet(settings.ignored_key_patterns)
        self._blocked_keys = PatternSet(settings.blocked_key_patterns)
        self._blocked_values = PatternSet(settings.blocked_values)
        self._allowed_values = PatternSet(settings.allowed_values)
        self.all_types = settings.redact_all_types
        self._sums_up = settings.summary != "silent"
        self._mask = masking(settings)
        self._rule = _Memory(self._rule_of)
        self._body_rule = _Memory(self._body_rule_of)
        self._seen = _Memory(self._looked_at)

    def attribute(self, key: str, text: str) -> tuple[Fate, str]:
        """What becomes of an attribute. text: see :meth:`text`; what is masked has the returned one instead."""
        rule = self._rule(key)
        if rule is _KeyRule.LOOK:
            return self._seen(text)
        if rule is _KeyRule.MASK:
            return self._seen(text) if self._seen(text)[0] is Fate.ALLOWED else (Fate.MASKED, self._mask(text))
        return _BY_KEY[rule], text

    def text(self, value: Value) -> str:
        """What patterns are looked for in. Values of other types are looked at only if that is asked for."""
        return value if isinstance(value, str) else as_text(value) if self.all_types else ""

    def body_key(self, key: str) -> Fate:
        """Of a key within the body of a log record; KEPT: its value is looked at."""
        return self._body_rule(key)

    def body_value(self, value: Value) -> tuple[Fate, str]:
        return self._seen(as_text(value))

    def masked(self, value: Value) -> str:
        """Of a value whose key is blocked."""
        return self._mask(value if isinstance(value, str) else "")

    def _rule_of(self, key: str) -> _KeyRule:
        if key in SUMMARY_KEYS and (self._sums_up or not self._is_removed(key)):
            return _KeyRule.OURS
        if key not in SUMMARY_KEYS and (key in self._ignored_keys or self._ignored_patterns.found_in(key)):
            return _KeyRule.IGNORE
        if self._is_removed(key):
            return _KeyRule.REMOVE
        return _KeyRule.MASK if self._blocked_keys.found_in(key) else _KeyRule.LOOK

    def _body_rule_of(self, key: str) -> Fate:
        if key in self._ignored_keys or self._ignored_patterns.found_in(key):
            return Fate.IGNORED
        if self._is_removed(key):
            return Fate.REDACTED
        return Fate.MASKED if self._blocked_keys.found_in(key) else Fate.KEPT

    def _is_removed(self, key: str) -> bool:
        return self._allowed_keys is not None and key not in self._allowed_keys

    def _looked_at(self, text: str) -> tuple[Fate, str]:
        if self._allowed_values.found_in(text):
            return Fate.ALLOWED, text
        masked = self._blocked_values.replaced(text, self._mask)
        return (Fate.KEPT if masked == text else Fate.MASKED), masked


def masking(settings: RedactionSettings) -> Callable[[str], str]:
    """What stands for a text that nobody is to see."""
    name = settings.hash_function
    if not name:
        mask = settings.masking_string or _MASK
        return lambda text: mask
    if name in _HMAC_KEYS:
        key, digest = settings.hmac_key.encode("utf-8", "replace"), name.removeprefix("hmac-")
        return lambda text: hmac.new(key, text.encode(), digest).hexdigest()
    function: Any = {"md5": hashlib.md5, "sha1": hashlib.sha1, "sha3": hashlib.sha3_256}[name]
    return lambda text: str(function(text.encode(), usedforsecurity=False).hexdigest())


#: attributes that say what was done; they are the Collector's
SUMMARY: Final[Mapping[Fate, tuple[str, str]]] = {
    Fate.REDACTED: ("redaction.redacted.keys", "redaction.redacted.count"),
    Fate.MASKED: ("redaction.masked.keys", "redaction.masked.count"),
    Fate.ALLOWED: ("redaction.allowed.keys", "redaction.allowed.count"),
    Fate.IGNORED: ("", "redaction.ignored.count"),
}
BODY_SUMMARY: Final[Mapping[Fate, tuple[str, str]]] = {
    Fate.REDACTED: ("redaction.body.redacted.keys", "redaction.body.redacted.count"),
    Fate.MASKED: ("redaction.body.masked.keys", "redaction.body.masked.count"),
    Fate.ALLOWED: ("redaction.body.allowed.keys", "redaction.body.allowed.count"),
    Fate.IGNORED: ("", "redaction.body.ignored.count"),
}
SUMMARY_KEYS: Final = frozenset(
    key for names in (SUMMARY, BODY_SUMMARY) for pair in names.values() for key in pair if key
)
