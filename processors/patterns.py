"""Regular expressions of users: RE2, as in the Collector, so patterns that worked there mean the same here.

RE2 (https://github.com/google/re2/wiki/Syntax) takes time in proportion to the text, whatever the pattern and the text: what
travels is chosen by strangers, and a backtracking engine can be kept busy for hours by forty characters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Annotated, Any, Final, TypeAlias

import re2
from pydantic import AfterValidator

#: matches of a pattern in a text that are replaced singly; where there are more the whole text is
MATCHES_REPLACED: Final = 1_000

#: bytes that a pattern may take, compiled; beyond it is refused
_MEMORY: Final = 33_554_432


def compiled(pattern: str) -> Any:
    """An RE2 object, used like those of :mod:`re`. Raises ValueError for what is none."""
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MEMORY
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0].decode("utf-8", "replace") if isinstance(error.args[0], bytes) else error.args[0]
        raise ValueError(f"is not a regular expression of RE2: {reason}") from error


def _checked(pattern: str) -> str:
    compiled(pattern)
    return pattern


#: A field of a configuration.
Pattern: TypeAlias = Annotated[str, AfterValidator(_checked)]


class PatternSet:
    """Several patterns, of which mostly none is found: they are looked for together first. Texts are valid Unicode."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = [compiled(pattern) for pattern in patterns]
        self._together = None
        if patterns:
            with suppress(ValueError):  # together too large, or with groups of the same name
                self._together = compiled("|".join(f"(?:{pattern})" for pattern in patterns))

    def found_in(self, text: str) -> bool:
        if not self._patterns:
            return False
        encoded = text.encode()  # as bytes, because nobody asks where; for text, RE2's binding counts characters
        if self._together is not None:
            return self._together.search(encoded) is not None
        return any(pattern.search(encoded) is not None for pattern in self._patterns)

    def replaced(self, text: str, replace: Callable[[str], str]) -> str:
        """Every match of every pattern replaced, one pattern after the other."""
        if not self.found_in(text):
            return text
        for pattern in self._patterns:
            text = _replaced(pattern, text, replace)
        return text


def _replaced(pattern: Any, text: str, replace: Callable[[str], str]) -> str:
    """As Go does it: an empty match right behind another match is none."""
    parts: list[str] = []
    end = 0
    for match in pattern.finditer(text):
        begin, following = match.span()
        if begin == following == end and parts:
            continue
        if len(parts) >= 2 * MATCHES_REPLACED:
            return replace(text)
        parts += (text[end:begin], replace(text[begin:following]))
        end = following
    return "".join(parts) + text[end:]


def matcher(patterns: Sequence[str], match_type: str) -> Callable[[str], bool]:
    """Whether a text is one of these (``strict``), or has a match of one of them (``regexp``)."""
    if match_type == "strict":
        return frozenset(patterns).__contains__
    return PatternSet(patterns).found_in


def group_names(pattern: str) -> list[str | None]:
    """The names of a pattern's groups, in order; None for one without a name."""
    found = compiled(pattern)
    names: list[str | None] = [None] * found.groups
    for name, number in found.groupindex.items():
        names[number - 1] = name
    return names
