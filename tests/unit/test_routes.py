"""Which route a path has, and what a span with a route says."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from wirespan.pipeline.counters import Counters
from wirespan.pipeline.spans import FragmentTable, SpanBatch, TextColumn
from wirespan.receiver.clock import Clock
from wirespan.receiver.ebpf import EbpfConfig
from wirespan.receiver.exchanges import ExchangeTranslator
from wirespan.receiver.ids import DEFAULT_KEY, IdSource
from wirespan.receiver.kernel.libbpf import BpfObject
from wirespan.receiver.kernel.session import abi_of, object_path
from wirespan.receiver.process import ProcessTable
from wirespan.receiver.protocols.capturing import Capture
from wirespan.receiver.routes import Routes

PATTERNS = ("/users/{id}", "/users/{id}/orders/{order}", "/static/*", "/health", "/users/*", "/")


def routed(patterns: tuple[str, ...], *paths: str) -> list[str | None]:
    """The first pattern that each path matches."""
    data = np.frombuffer("".join(paths).encode(), np.uint8)
    lengths = np.array([len(path.encode()) for path in paths], np.int64)
    found = Routes(patterns)._match(data, np.concatenate(([0], np.cumsum(lengths)[:-1])), lengths)
    return [None if route < 0 else patterns[route] for route in found.tolist()]


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/users/42", "/users/{id}"),
        ("/users/42/", "/users/*"),
        ("/users/42/orders/7", "/users/{id}/orders/{order}"),
        ("/users/42/orders/", "/users/*"),
        ("/users/", "/users/*"),
        ("/users", None),
        ("/static/", "/static/*"),
        ("/static/a/b.css", "/static/*"),
        ("/staticfiles", None),
        ("/health", "/health"),
        ("/Health", None),
        ("/health/", None),
        ("/", "/"),
        ("", None),
        ("/users/%7Bid%7D", "/users/{id}"),
        ("/users/{id}", "/users/{id}"),
    ],
)
def test_the_first_pattern_that_a_path_matches_is_its_route(path: str, route: str | None) -> None:
    assert routed(PATTERNS, path) == [route]


def test_patterns_mean_what_their_regular_expressions_mean() -> None:
    """Against an independent reading of them, over random paths of few letters."""
    random = np.random.default_rng(1)

    def word(letters: str, most: int) -> str:
        return "".join(random.choice(list(letters), random.integers(0, most)))

    for _ in range(300):
        segments = [("{x}" if random.random() < 0.3 else word("ab", 3)) for _ in range(random.integers(1, 4))]
        pattern = "".join(f"/{segment}" for segment in segments) + ("/*" if random.random() < 0.3 else "")
        expression = re.escape(pattern).replace(r"\{x\}", "[^/]+")
        expression = re.sub(r"\\\*$", ".*", expression)
        paths = ["/" + word("ab/", 8) for _ in range(50)]
        expected = [pattern if re.fullmatch(expression, path) else None for path in paths]
        assert routed((pattern,), *paths) == expected


@pytest.mark.parametrize(
    "pattern",
    ["", "users", "/users?id={id}", "/users/{id", "/users/x{id}", "/users/{}", "/*/users", "/us*", "/a b", "/ü"],
)
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="is no pattern of paths"):
        EbpfConfig(http={"routes": [pattern]})


def test_routes_need_paths() -> None:
    with pytest.raises(ValueError, match="no path is read"):
        EbpfConfig(payload="none", http={"routes": ["/"]})


def translated(capture: Capture, *requests: tuple[int, bytes]) -> SpanBatch:
    """Exchanges of HTTP by role and request, of an agent with PATTERNS."""
    with BpfObject.open(object_path()) as opened:
        abi, dtype = abi_of(opened.btf), opened.btf.dtype("exchange")
    records = np.zeros(len(requests), dtype)
    records["connection"]["cookie"] = np.arange(len(requests))
    for record, (role, request) in zip(records, requests, strict=True):
        record["connection"]["role"] = role
        for head, data in (("request", request), ("response", b"HTTP/1.1 200 OK\r\n\r\n")):
            data = data[: record[f"{head}_head"].size]
            record[f"{head}_head"][: len(data)] = np.frombuffer(data, "u1")
            record[f"{head}_captured"] = record[f"{head}_size"] = len(data)
    counters = Counters()
    translator = ExchangeTranslator(
        abi,
        Clock(counters),
        IdSource(DEFAULT_KEY, 1),
        ProcessTable(counters),
        counters,
        capture=capture,
        routes=Routes(PATTERNS),
    )
    translator.batch(records[:1])  # so that some of it was met before
    return translator.batch(records)


def said(batch: SpanBatch) -> list[tuple[Any, Any]]:
    """Name and route of each span."""
    operations = batch.fragments[1]
    fragments = [operations.table.fragments[index] for index in operations.ids.tolist()]
    return [(fragment.name, dict(fragment.attributes).get("http.route")) for fragment in fragments]


@pytest.mark.parametrize("capture", [Capture(), Capture(query_strings=True)])
def test_server_spans_have_their_routes_and_clients_none(capture: Capture) -> None:
    server, client = 2, 1
    batch = translated(
        capture,
        (server, b"GET /users/42?name=x HTTP/1.1\r\n\r\n"),
        (server, b"POST /users/43 HTTP/1.1\r\n\r\n"),
        (server, b"GET /users/44 HTTP/1.1\r\n\r\n"),
        (server, b"GET /nothing HTTP/1.1\r\n\r\n"),
        (client, b"GET /users/42 HTTP/1.1\r\n\r\n"),
        (server, b"BREW /health HTTP/1.1\r\n\r\n"),
        (server, b"OPTIONS * HTTP/1.1\r\n\r\n"),
        (server, b"GET /static/" + b"directory/" * 40 + b" HTTP/1.1\r\n\r\n"),
    )
    assert said(batch) == [
        ("GET /users/{id}", "/users/{id}"),
        ("POST /users/{id}", "/users/{id}"),
        ("GET /users/{id}", "/users/{id}"),
        ("GET", None),
        ("GET", None),
        ("HTTP /health", "/health"),
        ("OPTIONS", None),
        ("GET", None),
    ]


def test_texts_that_are_absent_have_no_route() -> None:
    column = TextColumn(np.zeros(0, np.uint8), np.zeros(3, np.int64), np.full(3, -1))
    table = FragmentTable()
    assert (
        Routes(PATTERNS)
        .named(table, np.zeros(0, np.int64), column.where(np.zeros(0, np.int64)), np.zeros(0, bool))
        .tolist()
        == []
    )
    assert Routes(PATTERNS)._match(column.data, column.begins, column.lengths).tolist() == [-1, -1, -1]
