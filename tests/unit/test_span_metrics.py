"""What spans add to metrics: durations by the semantic conventions, and exemplars of the kernel's histograms. Records are
such as the kernel writes them; spans are made of them by the translator."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from wirespan.native.durations import DurationTable
from wirespan.pipeline.counters import Counters
from wirespan.pipeline.spans import SpanBatch, SpanKind
from wirespan.receiver import semantic_metrics, span_metrics
from wirespan.receiver.clock import Clock
from wirespan.receiver.edge_metrics import add_semantic
from wirespan.receiver.edges import ResourceItems, Series
from wirespan.receiver.exchanges import ExchangeTranslator
from wirespan.receiver.exemplars import ExemplarAccounts, Exemplars, by_known_series
from wirespan.receiver.ids import DEFAULT_KEY, IdSource
from wirespan.receiver.kernel.libbpf import BpfObject
from wirespan.receiver.kernel.session import abi_of, edge_names_of, object_path
from wirespan.receiver.metrics_request import MetricsRequest
from wirespan.receiver.process import ImageKey, ProcessTable, Resource
from wirespan.receiver.sampling import Sampling
from wirespan.receiver.semantic_series import SemanticCounts
from wirespan.receiver.span_metrics import SpanMetrics

CLIENT, SERVER = 1, 2
TIMEOUT = 3
TCP, UDP = 6, 17
MESSAGE = 32
MILLISECOND = 1_000_000
REST: ResourceItems = (("service.name", "unknown_service"),)
OK = b"HTTP/1.1 200 OK\r\n\r\n"
MISSING = b"HTTP/1.1 404 Not Found\r\n\r\n"
BROKEN = b"HTTP/1.1 503 Busy\r\n\r\n"
DNS_QUERY = bytes.fromhex("12340100000100000000000003") + b"www\3com\0\0\1\0\1"
NXDOMAIN = DNS_QUERY[:2] + b"\x81\x83" + DNS_QUERY[4:]


def described(image: ImageKey, resource: Resource) -> ResourceItems:
    return (("service.name", resource["service.name"]),)


class Spans:
    """A translator whose spans are counted."""

    def __init__(self, sampling: Sampling | None = None, exemplars: bool = True, **limits: int) -> None:
        self._bpf = BpfObject.open(object_path())
        self.names = edge_names_of(self._bpf.btf)
        self.counters = Counters()
        self.metrics = SpanMetrics(self.names, described, REST, self.counters, 1_000, exemplars, **limits)
        self.translator = ExchangeTranslator(
            abi_of(self._bpf.btf),
            Clock(self.counters),
            IdSource(DEFAULT_KEY, 1),
            ProcessTable(self.counters),
            self.counters,
            sampling=sampling,
            count_spans=self.metrics.count,
        )
        self._position = 0
        self._looks = 1

    def exchange(self, request: bytes, response: bytes, took: int = MILLISECOND, **fields: Any) -> SpanBatch:
        """One at port 8080 that took so many ns."""
        return self.translator.batch(self.record(request, response, took, **fields))

    def record(self, request: bytes, response: bytes, took: int = MILLISECOND, **fields: Any) -> np.ndarray:
        records = np.zeros(1, self._bpf.btf.dtype("exchange"))
        record, connection = records[0], records[0]["connection"]
        role = fields.pop("role", SERVER)
        mine, other = ("local", "remote") if role == SERVER else ("remote", "local")
        connection["role"], connection["transport"] = role, fields.pop("transport", TCP)
        connection[f"{mine}_port"], connection[f"{other}_port"] = fields.pop("port", 8080), 40_000
        for end, host in (("local", 1), ("remote", fields.pop("peer", 2))):
            connection[f"{end}_address"] = np.frombuffer(bytes(10) + b"\xff\xff\x0a\0\0" + bytes([host]), "u1")
        connection["sampling"] = fields.pop("level", 0)
        record["process"]["tgid"] = 2**22 + 1
        record["process"]["comm"] = np.frombuffer(fields.pop("service", b"shop").ljust(16, b"\0"), "u1")
        self._position += 100
        record["position"] = self._position
        record["request_start"] = record["request_end"] = time.monotonic_ns()
        record["response_end"] = record["request_start"] + np.uint64(took)
        record["response_start"] = record["response_end"] if response else 0
        for head, data in (("request", request), ("response", response)):
            record[f"{head}_head"][: len(data)] = np.frombuffer(data, "u1")
            record[f"{head}_captured"] = record[f"{head}_size"] = len(data)
        for name, value in fields.items():
            record[name] = value
        return records

    def look(self) -> tuple[dict[tuple[Any, ...], SemanticCounts], dict[Series, Exemplars]]:
        """Counts by metric, service and attributes in the order of the convention; exemplars of edges."""
        self._looks += 1
        counts, exemplars = self.metrics.look(1_000 * self._looks)
        by_name = {
            (of.series.metric, dict(of.series.resource)["service.name"], *dict(of.series.attributes).values()): of
            for of in counts
        }
        return by_name, exemplars

    def counts(self) -> dict[tuple[Any, ...], int]:
        return {name: int(of.counts.sum()) for name, of in self.look()[0].items()}


@pytest.fixture
def spans() -> Spans:
    return Spans()


def get(path: str = "/") -> bytes:
    return f"GET {path} HTTP/1.1\r\n\r\n".encode()


def test_requests_of_http_count_at_each_end_by_method_and_status(spans: Spans) -> None:
    for path in ("/", "/items/1", "/items/2"):
        spans.exchange(get(path), OK)
    spans.exchange(get(), BROKEN)
    for response in (OK, MISSING):
        spans.exchange(get(), response, role=CLIENT)
    server, client = "http.server.request.duration", "http.client.request.duration"
    assert spans.counts() == {
        (server, "shop", "GET", 200, "http", "1.1", 8080): 3,
        (server, "shop", "GET", 503, "503", "http", "1.1", 8080): 1,
        (client, "shop", "GET", 200, "1.1", 8080): 1,
        (client, "shop", "GET", 404, "404", "1.1", 8080): 1,
    }


def test_a_request_without_an_answer_counts_by_its_error(spans: Spans) -> None:
    spans.exchange(get(), b"", role=CLIENT, outcome=TIMEOUT)
    assert spans.counts() == {("http.client.request.duration", "shop", "GET", "timeout", "1.1", 8080): 1}


def test_an_answer_whose_request_is_not_known_has_the_method_that_the_convention_has_for_it(spans: Spans) -> None:
    spans.exchange(b"", OK)
    assert spans.counts() == {("http.server.request.duration", "shop", "_OTHER", 200, "http", "1.1", 8080): 1}


def test_operations_of_databases_count_at_the_client_alone(spans: Spans) -> None:
    request = b"*2\r\n$4\r\nLPOP\r\n$4\r\nuser\r\n"
    for role in (CLIENT, SERVER):
        spans.exchange(request, b"$-1\r\n", role=role, port=6379)
        spans.exchange(request, b"-WRONGTYPE Operation\r\n", role=role, port=6379)
    assert spans.counts() == {
        ("db.client.operation.duration", "shop", "redis", "LPOP", 6379): 1,
        ("db.client.operation.duration", "shop", "redis", "LPOP", "WRONGTYPE", "WRONGTYPE", 6379): 1,
    }


def test_lookups_of_names_count_at_the_client_alone(spans: Spans) -> None:
    for role in (CLIENT, SERVER):
        spans.exchange(DNS_QUERY, NXDOMAIN, role=role, port=53, transport=UDP)
    assert spans.counts() == {("dns.lookup.duration", "shop", "www.com", "host_not_found"): 1}


def test_what_no_convention_is_about_and_messages_count_nowhere(spans: Spans) -> None:
    spans.exchange(b"\0\0\0\5hello", b"\0\0\0\5world")
    spans.exchange(b"", OK, flags=MESSAGE)
    assert spans.look()[0] == {}


def test_durations_are_counted_in_the_buckets_of_the_convention(spans: Spans) -> None:
    """A bound belongs to the bucket below it."""
    for took in (1, 5 * MILLISECOND, 5 * MILLISECOND + 1, 40 * MILLISECOND, 10_000 * MILLISECOND, 10_001 * MILLISECOND):
        spans.exchange(get(), OK, took)
        spans.exchange(b"*1\r\n$4\r\nPING\r\n", b"+PONG\r\n", took, role=CLIENT, port=6379)
    http, redis = spans.look()[0].values()
    assert http.bounds == (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
    assert http.counts.tolist() == [2, 1, 0, 1, *[0] * 9, 1, 1]
    assert redis.bounds == (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
    assert redis.counts.tolist() == [1, 1, 1, 1, 0, 0, 0, 0, 1, 1]
    assert http.total == redis.total == pytest.approx(20.051_000_002, rel=1e-12)


def test_counts_are_cumulative_and_begin_when_there_was_none_yet(spans: Spans) -> None:
    spans.exchange(get(), OK)
    spans.look()
    spans.exchange(get(), OK)
    spans.exchange(get(), MISSING)
    found, missing = spans.look()[0].values()
    assert (found.start, found.counts.sum()) == (1_000, 2)
    assert (missing.start, missing.counts.sum()) == (1_000, 1), "two looks ago"


def test_a_sampled_span_stands_for_those_that_were_left_out() -> None:
    spans = Spans(Sampling(0.1))
    for level in (1, 1, 0):
        spans.exchange(get(), OK, 7 * MILLISECOND, level=level)
    ((_, counts),) = spans.look()[0].items()
    assert counts.counts.sum() == 21
    assert counts.total == pytest.approx(21 * 0.007)


def test_estimates_of_a_budget_are_whole_numbers_whose_buckets_are_the_count() -> None:
    spans = Spans(Sampling(max_per_second=100))
    for took in (1, 7, 70, 700):
        spans.exchange(get(), OK, took * MILLISECOND, level=3)
    (counts,) = spans.look()[0].values()
    assert counts.counts.tolist() == [round(2 ** (3 / 8))] * 2 + [0, 0, 1, 0, 0, 0, 1, *[0] * 6]


def test_new_tables_of_the_translator_change_nothing(spans: Spans) -> None:
    for _ in range(3):
        spans.exchange(get(), OK)
        spans.exchange(b"", OK)
        spans.translator.start_anew()
    assert set(spans.counts().values()) == {3}


def test_more_cells_than_are_remembered_are_looked_at_again(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(span_metrics, "CELLS_KEPT", 4)
    spans.metrics._cells = span_metrics._Cells()
    for _ in range(3):
        for port in range(20):
            spans.exchange(get(), OK, port=1000 + port)
    assert set(spans.counts().values()) == {3}
    assert spans.metrics._cells._count <= 2 * 4 + 1


def test_a_service_with_too_many_series_has_one_for_the_rest(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(semantic_metrics, "SERIES_OF_A_RESOURCE", 3)
    for _ in range(2):
        for port in range(5):
            spans.exchange(get(), OK, port=port)
    spans.exchange(get(), OK, service=b"till")
    counts = spans.counts()
    assert counts.pop(("http.server.request.duration", "shop", True)) == 4
    assert counts.pop(("http.server.request.duration", "till", "GET", 200, "http", "1.1", 8080)) == 1
    assert list(counts.values()) == [2, 2, 2]
    assert spans.counters.snapshot()["wirespan.semantic_metrics.overflowed", ()] == 4


def test_names_that_clients_ask_for_are_bounded_more_closely(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(semantic_metrics, "NAMES_OF_A_RESOURCE", 10)
    for number in range(50):
        query = DNS_QUERY[:13] + b"%03d" % number + DNS_QUERY[16:]
        spans.exchange(query, query[:2] + b"\x81\x80" + query[4:], role=CLIENT, port=53, transport=UDP)
    counts = spans.counts()
    assert len(counts) == 11
    assert counts["dns.lookup.duration", "shop", True] == 40


def test_all_services_together_are_bounded() -> None:
    spans = Spans(limit=5)
    for number in range(20):
        spans.exchange(get(), OK, service=b"service-%d" % number)
    counts = spans.counts()
    assert len(counts) == 6
    assert counts["http.server.request.duration", "unknown_service", True] == 15


def test_series_that_were_idle_for_long_give_way_to_new_ones() -> None:
    spans = Spans(limit=5)
    for number in range(20):
        spans.exchange(get(), OK, service=b"service-%d" % number)
    for _ in range(45):
        for service in (b"service-1", b"service-19"):
            spans.exchange(get(), OK, service=service)
        found = spans.look()[0]
    by_service = {name[1]: of for name, of in found.items()}
    assert by_service.keys() == {"service-1", "service-19", "unknown_service"}
    assert by_service["service-1"].counts.sum() == 46
    late = by_service["service-19"]
    assert late.counts.sum() == (45_000 - late.start) / 1_000, "it begins two looks before the first"
    assert by_service["unknown_service"].counts.sum() == 15 + 45 - late.counts.sum()


def test_exemplars_are_the_latest_spans_of_each_bucket_since_the_last_look(spans: Spans) -> None:
    for took in (2, 3, 700):
        batch = spans.exchange(get(), OK, took * MILLISECOND)
    (counts,) = spans.look()[0].values()
    assert [round(duration / MILLISECOND) for duration in counts.exemplars["duration"].tolist()] == [3, 700]
    last = counts.exemplars[-1]
    assert last["trace_id"].tolist() == batch.trace_id[0].tolist()
    assert (last["span_id"], last["time"]) == (batch.span_id[0], batch.end[0])
    assert [len(of.exemplars) for of in spans.look()[0].values()] == [0]


def test_series_that_had_no_exemplars_for_long_give_way_to_new_ones() -> None:
    accounts = ExemplarAccounts(limit=2)
    old, busy, new = (Series((), SpanKind.SERVER, port, "tcp", "", "", "", "") for port in (1, 2, 3))
    rows = [accounts.row_of(series) for series in (old, busy)]
    for _ in range(41):
        assert accounts.row_of(new) == -1
        assert not accounts.make_room()
        accounts.table.exemplars["span_id"][rows[1], 3] = 7
        assert accounts.take().keys() == {busy}
    assert accounts.make_room()
    assert accounts.row_of(new) == rows[0]
    assert accounts.row_of(busy) == rows[1]


def test_what_a_table_does_not_keep_takes_no_memory() -> None:
    counting, keeping = DurationTable([1, 2], True, False), DurationTable([1, 2], False, True)
    for table in (counting, keeping):
        for _ in range(200):
            table.new()
        table.free(7)
    assert (counting.exemplars.nbytes, keeping.counts.nbytes) == (0, 0)
    assert min(counting.counts.nbytes, keeping.exemplars.nbytes) >= 200 * 3 * 8


def test_what_was_looked_at_does_not_change_any_more(spans: Spans) -> None:
    spans.exchange(get(), OK)
    counts, _ = spans.metrics.look(2_000)
    spans.exchange(get(), OK)
    ((of,), (later,)) = counts, spans.metrics.look(3_000)[0]
    assert (of.counts.sum(), later.counts.sum()) == (1, 2)


def test_without_spans_that_go_up_there_are_no_exemplars() -> None:
    spans = Spans(exemplars=False)
    spans.exchange(get(), OK)
    found, of_edges = spans.look()
    assert of_edges == {}
    assert [len(of.exemplars) for of in found.values()] == [0]


@pytest.mark.parametrize(
    ("request_head", "response", "fields", "expected"),
    [
        (get(), OK, {}, ("http", "success", "", "external")),
        (get(), MISSING, {"peer": 1}, ("http", "client_error", "", "machine")),
        (get(), BROKEN, {"role": CLIENT}, ("http", "server_error", "", "external")),
        (get(), b"", {"role": CLIENT, "outcome": TIMEOUT}, ("http", "", "timeout", "external")),
        (b"*1\r\n$4\r\nPING\r\n", b"+PONG\r\n", {}, ("redis", "success", "", "external")),
        (b"*1\r\n$4\r\nLPOP\r\n", b"-MOVED 1 a:1\r\n", {}, ("redis", "redirection", "", "external")),
        (b"*1\r\n$4\r\nLPOP\r\n", b"-WRONGTYPE\r\n", {}, ("redis", "error", "", "external")),
        (DNS_QUERY, NXDOMAIN, {"transport": UDP}, ("dns", "client_error", "", "external")),
        (b"hello", b"world", {}, ("", "", "", "external")),
    ],
)
def test_exemplars_are_of_the_edge_that_the_kernel_counts(
    spans: Spans, request_head: bytes, response: bytes, fields: dict[str, Any], expected: tuple[str, ...]
) -> None:
    spans.exchange(request_head, response, **fields)
    kind = SpanKind.CLIENT if fields.get("role") == CLIENT else SpanKind.SERVER
    transport = "udp" if fields.get("transport") == UDP else "tcp"
    ((series, exemplars),) = spans.look()[1].items()
    assert series == Series((("service.name", "shop"),), kind, 8080, transport, *expected)
    assert len(exemplars) == 1


def test_a_series_of_which_the_kernel_can_tell_less_has_the_exemplars(spans: Spans) -> None:
    spans.exchange(get(), OK)
    spans.exchange(get(), BROKEN)
    _, found = spans.look()
    (told, _) = found
    less = told._replace(protocol="", status="")
    assert len(by_known_series(found, {less})[less]) == 2
    assert by_known_series(found, {told, less}).keys() == {told, less}
    assert by_known_series(found, {told._replace(server_port=1)}) == {}


def points(request: MetricsRequest) -> Iterator[tuple[Any, Any, Any]]:
    """Scope, metric and point."""
    for group in ExportMetricsServiceRequest.FromString(request.batch().data).resource_metrics:
        for scope in group.scope_metrics:
            for metric in scope.metrics:
                for point in metric.histogram.data_points:
                    yield scope.scope, metric, point


@pytest.mark.parametrize("estimated", [False, True])
def test_they_are_explicit_histograms_of_otlp(spans: Spans, estimated: bool) -> None:
    batch = spans.exchange(get(), OK, 30 * MILLISECOND)
    request = MetricsRequest(9_000, REST)
    add_semantic(request, spans.metrics.look(2_000)[0], estimated)
    ((scope, metric, point),) = points(request)
    assert [(one.key, one.value.bool_value) for one in scope.attributes] == (
        [("wirespan.sampling.estimated", True)] if estimated else []
    )
    assert (metric.name, metric.unit) == ("http.server.request.duration", "s")
    assert metric.histogram.aggregation_temporality == 2
    assert (point.start_time_unix_nano, point.time_unix_nano) == (1_000, 9_000)
    assert (point.count, point.sum) == (1, 0.03)
    assert list(point.bucket_counts) == [0, 0, 0, 1, *[0] * 11]
    assert len(point.explicit_bounds) == 14
    (exemplar,) = point.exemplars
    assert int.from_bytes(exemplar.trace_id, "big") == int(batch.trace_id[0, 0]) << 64 | int(batch.trace_id[0, 1])
    assert int.from_bytes(exemplar.span_id, "big") == int(batch.span_id[0])
    assert (exemplar.as_double, exemplar.time_unix_nano) == (0.03, int(batch.end[0]))


def test_a_span_is_counted_as_quickly_as_it_is_made(spans: Spans) -> None:
    """Once its cell is known, nothing of Python runs for a span."""
    records = np.concatenate([spans.record(get(f"/{n}"), OK, n * 10_000) for n in range(2_000)])
    batch = spans.translator.batch(records)
    asked: list[int] = []
    cell_of: Callable[..., Any] = spans.metrics._cell_of
    spans.metrics._cell_of = lambda rows, row: asked.append(row) or cell_of(rows, row)  # type: ignore[method-assign]
    spans.metrics.count(batch, records)
    assert asked == []
