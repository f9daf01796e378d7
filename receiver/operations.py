"""What an exchange was about, by the heads of its record: the fragment of the protocol's summary, and the URL.

wirespan/native/heads.c makes a key of what matters in the heads; the fragment of a key is remembered, and a parser is
asked once a key. Keys are hashes of 64 bits with a secret of this run, so no payload outlives its batch. The path of a
plain HTTP request is in no key and in no fragment: it goes as a text into the batch. The same pass finds the trace
context of a request.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Sequence
from ctypes import byref
from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from ..native.key_table import KeyTable, Numbers
from ..native.library import HeadColumns, HeadRules, address, addresses, library, records_of
from ..pipeline.spans import ByteTable, Fragment, FragmentTable, TextColumn
from .protocols.capturing import Capture, capturing
from .protocols.databases import database_told
from .protocols.parser import Parser
from .protocols.redis_commands import CONTAINERS, WORD_LIMIT
from .protocols.registry import (
    DNS_PARSER,
    HTTP1_PARSER,
    HTTP2_PARSER,
    PARSERS,
    RESP_PARSER,
    TLS_PARSER,
    recognise,
)
from .scopes import Records, View
from .trace_context import TraceContexts


class Meaning(IntEnum):
    """What the key of a record was made of: enum meaning of heads.c."""

    HEADS = 0
    UNKNOWN = 1
    HTTP1 = 2
    REDIS = 3
    DNS = 4
    TLS = 5
    HTTP2 = 6
    MESSAGE = 7
    DATABASE = 8


#: parsers whose plain exchanges, and whose impossible ones, heads.c tells
_TOLD_APART: Final = (HTTP1_PARSER, RESP_PARSER, DNS_PARSER, TLS_PARSER)

#: and those of what it knows for certain
_TOLD: Final[dict[Meaning, Parser]] = {
    Meaning.REDIS: RESP_PARSER,
    Meaning.TLS: TLS_PARSER,
    Meaning.HTTP2: HTTP2_PARSER,
}


_NOTHING: Final = Capture()


class Heads:
    """The keys of a batch, its texts and its trace contexts."""

    def __init__(
        self,
        records: Records,
        views: Numbers,
        origins: ByteTable,
        secret: npt.NDArray[np.uint64],
        capture: Capture = _NOTHING,
    ) -> None:
        count = len(records)
        longest = int(np.diff(origins.ends[: len(origins) + 1]).max(initial=0))
        room = np.empty(count * (records["request_head"].shape[1] + longest), np.uint8)
        self.keys = np.empty(count, np.uint64)
        self.meanings = np.empty(count, np.uint8)
        begins, lengths = np.empty(count, np.int64), np.empty(count, np.int64)
        rules = HeadRules(
            key=address(secret),
            containers=address(_CONTAINER_WORDS),
            container_count=len(_CONTAINER_WORDS),
            origins=address(origins.data),
            origin_ends=address(origins.ends),
            ask_all=len(PARSERS) > len(_TOLD_APART),
            whole_http=capture.of_http,
            whole_redis=capture.of_redis,
        )
        flags, trace_ids = np.empty(count, np.uint8), np.empty((count, 2), np.uint64)
        parents = np.empty(count, np.uint64)
        self.told = np.empty(count, np.uint64)
        columns = HeadColumns(
            *addresses(self.keys, self.meanings, room, begins, lengths, flags, trace_ids, parents, self.told), 0, 0, 0
        )
        used = library().head_keys(byref(records_of(records)), byref(rules), address(views), byref(columns))
        self.texts = TextColumn(room[:used].copy(), begins, lengths)
        self.contexts = TraceContexts(flags, trace_ids, parents, columns.flagged, columns.invalid, columns.cut)


class Operations:
    """Tells the protocol of a record from its heads, and keeps what parsers made of them.

    limit: fragments and summaries; ``full`` then says to start anew. heads: keys remembered, see :class:`KeyTable`. capture:
    what is emitted beyond what parsers say by themselves.
    """

    def __init__(self, limit: int, heads: int, capture: Capture = _NOTHING) -> None:
        self._capture = capture
        self._capturing = capturing(capture, HTTP1_PARSER, RESP_PARSER)
        self.table = FragmentTable(limit)
        self._by_key = KeyTable(heads)
        self._by_summary: dict[tuple[int, Parser | None, Hashable], int] = {}
        self._secret = np.frombuffer(os.urandom(16), np.uint64)

    @property
    def full(self) -> bool:
        """Whether to start anew."""
        return self.table.full or len(self._by_summary) >= self.table.limit

    def of_heads(
        self, records: Records, numbers: Numbers, views: Sequence[View], origins: ByteTable
    ) -> tuple[Numbers, TextColumn, TraceContexts]:
        """The fragment of each record in ``table``, the text of its URL, if any, and its trace context. numbers: of each
        record's view."""
        heads = Heads(records, numbers, origins, self._secret, self._capture)

        def read(row: int) -> int:
            request, response = _head(records, row, "request"), _head(records, row, "response")
            return self._read(
                views[numbers[row]], Meaning(heads.meanings[row]), request, response, int(heads.told[row])
            )

        return self._by_key.recall(heads.keys, read), heads.texts, heads.contexts

    def _read(self, view: View, meaning: Meaning, request: bytes, response: bytes, told: int) -> int:
        if meaning is Meaning.DATABASE:
            return self.of_summary(view, *database_told(told))
        if meaning is Meaning.UNKNOWN:
            return self.of_summary(view, None, None)
        if meaning is Meaning.MESSAGE:
            return self.table.intern(Fragment(f"{view.transport.upper()} {view.server.port} push"))
        if meaning is Meaning.HTTP1:
            summary = HTTP1_PARSER.summarise(request, response)
            return self.table.intern(HTTP1_PARSER.fragment_without_url(summary, view.kind))
        parser = _TOLD.get(meaning) or recognise(request, response)
        if parser is None and told:  # third-party parsers know more of it
            return self.of_summary(view, *database_told(told))
        if parser is not None:
            parser = self._capturing.get(parser, parser)
        return self.of_summary(view, parser, parser.summarise(request, response) if parser else None)

    def of_summary(self, view: View, parser: Parser | None, summary: Hashable) -> int:
        """The fragment of one exchange whose summary is known; ``parser`` None is the unknown protocol."""
        key = (view.number, parser, summary)
        index = self._by_summary.get(key)
        if index is None:
            if parser is None:
                fragment = Fragment(name=f"{view.transport.upper()} {view.server.port}")
            else:
                fragment = parser.fragment(summary, view.kind, view.server)
            index = self._by_summary[key] = self.table.intern(fragment)
        return index


def _head(records: Records, row: int, side: str) -> bytes:
    """The captured bytes of one side of a record."""
    record = records[row]
    return bytes(record[f"{side}_head"][: record[f"{side}_captured"]])


#: struct redis_word of redis.h
_CONTAINER_WORDS: Final = np.array(CONTAINERS, f"S{WORD_LIMIT}")
