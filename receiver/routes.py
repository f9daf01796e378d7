"""``http.route``: the wire has only the path, so routes are those that the user lists; nothing is guessed.

A pattern is a path in which ``{name}`` stands for one segment, and ``*`` at the end for any rest. The first one that a path matches
is the route of the server's span, and with the method its name. A path that the capture has cut has none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from ..native.key_table import KeyTable, Numbers
from ..native.library import address, addresses, library
from ..pipeline.spans import ByteTable, FragmentTable, SpanKind, TextColumn
from .protocols.http1 import url_attribute

#: patterns of a configuration
ROUTES_LIMIT: Final = 1_000

#: segments: a name in braces, or what a path may hold (RFC 3986 3.3); path parameters are no part of url.path
_PATTERN: Final = re.compile(r"(?:/(?:\{[^{}/*]+\}|[A-Za-z0-9._~!$&'()+,=:@%-]*))*(?:/\*)?")
_PATH: Final = url_attribute(SpanKind.SERVER)
_NONE: Final = -1
#: pairs of an operation and a route remembered, in each of two generations
_KNOWN: Final = 4_096


def checked_pattern(pattern: str) -> str:
    """ValueError unless it is one."""
    if not pattern or not _PATTERN.fullmatch(pattern):
        raise ValueError(
            f'"{pattern}" is no pattern of paths: it begins with /, a segment is text or {{name}}, and the last one may be *'
        )
    return pattern


class Routes:
    """patterns: at least one, the first match counts."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = tuple(patterns)
        self._bytes = ByteTable()
        self._bytes.append([pattern.encode() for pattern in patterns])
        self._table: FragmentTable | None = None
        self._known = KeyTable(_KNOWN)

    def named(
        self, table: FragmentTable, operations: Numbers, paths: TextColumn, server_side: npt.NDArray[np.bool_]
    ) -> Numbers:
        """The operations with their routes. paths: of each span, maybe with what precedes it in a client's URL; where there is
        none, that of the operation counts."""
        if self._table is not table:
            self._table = table
            self._known.clear()
        found = self._match(paths.data, paths.begins, np.where(server_side, paths.lengths, _NONE))
        codes = operations * (len(self._patterns) + 1) + found + 1
        return self._known.recall(
            codes.view(np.uint64), lambda row: self._add(table, int(operations[row]), int(found[row]))
        )

    def _match(self, data: npt.NDArray[np.uint8], begins: Numbers, lengths: Numbers) -> Numbers:
        found = np.empty(len(begins), np.int64)
        texts = addresses(data, np.ascontiguousarray(begins), np.ascontiguousarray(lengths))
        patterns = addresses(self._bytes.data, self._bytes.ends)
        library().match_routes(*texts, len(begins), *patterns, len(self._patterns), address(found))
        return found

    def _add(self, table: FragmentTable, operation: int, route: int) -> int:
        fragment = table.fragments[operation]
        said = dict(fragment.attributes)
        if route == _NONE and isinstance(said.get(_PATH), str):
            route = self._route_of(str(said[_PATH]))
        if route == _NONE or said.get("wirespan.url.truncated"):
            return operation
        pattern = self._patterns[route]
        attributes = (*fragment.attributes, ("http.route", pattern))
        return table.intern(replace(fragment, name=f"{fragment.name} {pattern}", attributes=attributes))

    def _route_of(self, path: str) -> int:
        data = np.frombuffer(path.encode(), np.uint8)
        return int(self._match(data, np.zeros(1, np.int64), np.array([len(data)], np.int64))[0])
