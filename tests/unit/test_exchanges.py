"""Records to span batches: what is derived from a record, and what happens at every limit."""

from __future__ import annotations

import gc
import ipaddress
import os
import resource
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wirespan.pipeline.counters import Counters
from wirespan.pipeline.otlp import encode_requests
from wirespan.pipeline.spans import SpanBatch, SpanKind, StatusCode
from wirespan.receiver import exchanges, operations
from wirespan.receiver.clock import Clock
from wirespan.receiver.exchanges import ExchangeTranslator
from wirespan.receiver.ids import DEFAULT_KEY, IdSource
from wirespan.receiver.kernel.libbpf import BpfObject
from wirespan.receiver.kernel.session import abi_of
from wirespan.receiver.policies import CLASSES, POLICIES, Memory, Policies
from wirespan.receiver.process import ProcessTable
from wirespan.receiver.protocols import registry
from wirespan.receiver.protocols.capturing import Capture
from wirespan.receiver.protocols.http1 import Http1Parser
from wirespan.receiver.protocols.http1_messages import Summary
from wirespan.receiver.protocols.redis_text import QueryText
from wirespan.receiver.sampling import Sampling
from wirespan.receiver.scopes import address_text

OBJECT = Path(__file__).parents[2] / "bpf" / "wirespan.bpf.o"
CLIENT, SERVER = 1, 2
TIMEOUT = 3
SEND_START_UNKNOWN = 2
PIPELINED = 4
MESSAGE = 32
BASE = time.monotonic_ns()
TRACED = b"GET / HTTP/1.1\r\ntraceparent: 00-" + b"1" * 32 + b"-" + b"2" * 16 + b"-01\r\n\r\n"


@pytest.fixture(scope="module")
def bpf() -> BpfObject:
    return BpfObject.open(OBJECT)


@pytest.fixture
def counters() -> Counters:
    return Counters()


@pytest.fixture
def translator(bpf: BpfObject, counters: Counters) -> ExchangeTranslator:
    return make_translator(bpf, counters)


def make_translator(
    bpf: BpfObject, counters: Counters, *assumed: str, capture: Capture | None = None
) -> ExchangeTranslator:
    networks = [ipaddress.ip_network(network) for network in assumed]
    ids, processes = IdSource(DEFAULT_KEY, 1), ProcessTable(counters)
    return ExchangeTranslator(abi_of(bpf.btf), Clock(counters), ids, processes, counters, networks, capture=capture)


def budgeted_translator(bpf: BpfObject, counters: Counters) -> ExchangeTranslator:
    """One with a budget that is never used up."""
    sampling, types = Sampling(max_per_second=1000, keep_errors=True), bpf.btf
    policy, counts = np.zeros(POLICIES, types.dtype("policy")), np.zeros((1, POLICIES), types.dtype("policy_counts"))
    policies = Policies(
        Memory(policy, counts, np.zeros((), np.int64), np.zeros(CLASSES, np.int64), np.zeros((), np.int32)),
        sampling,
        SERVER,
        1000,
        1000,
    )
    ids, processes = IdSource(DEFAULT_KEY, 1), ProcessTable(counters)
    return ExchangeTranslator(abi_of(types), Clock(counters), ids, processes, counters, (), sampling, policies)


def packed(address: str) -> np.ndarray:
    parsed = ipaddress.ip_address(address)
    return np.frombuffer(parsed.packed if parsed.version == 6 else bytes(10) + b"\xff\xff" + parsed.packed, "u1")


def record(bpf: BpfObject, role: int = SERVER, server: str = "10.0.0.2", **fields: Any) -> np.ndarray:
    """One exchange of 10.0.0.1:40000 with ``server``:7000, times in ns after BASE."""
    records = np.zeros(1, bpf.btf.dtype("exchange"))
    one = records[0]
    connection = one["connection"]
    mine, other = ("local", "remote") if role == SERVER else ("remote", "local")
    connection["cookie"], connection["role"], connection["family"] = fields.pop("cookie", 7), role, 2
    connection[f"{mine}_address"], connection[f"{mine}_port"] = packed(server), 7000
    connection[f"{other}_address"], connection[f"{other}_port"] = packed("10.0.0.1"), 40000
    one["process"]["comm"] = np.frombuffer(b"gone".ljust(16, b"\0"), "u1")
    one["process"]["tgid"] = 2**22 + 1
    one["request_size"] = 1
    times = {"arrived": 100, "request_start": 200, "request_end": 300, "response_start": 400, "response_end": 500}
    for name, offset in {**times, **{k: fields.pop(k) for k in times.keys() & fields.keys()}}.items():
        one[name] = 0 if offset is None else BASE + offset
    for name, value in fields.items():
        one[name] = value
    return records


def traceparent_head(bpf: BpfObject) -> np.ndarray:
    size = bpf.btf.dtype("exchange")["request_head"].shape[0]
    return np.frombuffer(TRACED.ljust(size, b"\0"), "u1")


def text(batch: SpanBatch, row: int = 0) -> dict[str, Any]:
    """Shared attributes of a span, with its name and status."""
    found: dict[str, Any] = {}
    for column in batch.fragments:
        fragment = column.table.fragments[column.ids[row]]
        found.update(fragment.attributes)
        found |= {"name": fragment.name} if fragment.name else {}
        found |= {"status": fragment.status} if fragment.status else {}
    for name, texts in batch.texts.items():
        value = texts.text(row)
        found |= {name: value} if value is not None else {}
    return found


def duration(batch: SpanBatch, part: str) -> float:
    return float(batch.numbers[f"wirespan.{part}.duration"][0])


def test_a_server_span_begins_when_its_request_arrived(bpf: BpfObject, translator: ExchangeTranslator) -> None:
    batch = translator.batch(record(bpf))
    assert int(batch.end[0] - batch.start[0]) == 400
    parts = [duration(batch, part) for part in ("queue", "request", "processing", "response")]
    assert parts == [100e-9, 100e-9, 100e-9, 100e-9]


def test_a_client_span_is_written_to_read_and_has_no_queue(bpf: BpfObject, translator: ExchangeTranslator) -> None:
    batch = translator.batch(record(bpf, CLIENT, arrived=350))
    assert batch.kind[0] == SpanKind.CLIENT
    assert int(batch.end[0] - batch.start[0]) == 300
    assert np.isnan(duration(batch, "queue"))
    assert duration(batch, "processing") == 50e-9


def test_an_unknown_arrival_is_absent_not_zero(bpf: BpfObject, translator: ExchangeTranslator) -> None:
    batch = translator.batch(record(bpf, arrived=None))
    assert np.isnan(duration(batch, "queue"))
    assert int(batch.end[0] - batch.start[0]) == 300


def test_a_negative_part_is_clamped_and_counted(
    bpf: BpfObject, translator: ExchangeTranslator, counters: Counters
) -> None:
    assert duration(translator.batch(record(bpf, CLIENT, arrived=250)), "processing") == 0.0
    assert counters.snapshot()["wirespan.durations.clamped", ()] == 1


def test_a_request_without_an_answer_is_an_error_of_its_kind(bpf: BpfObject, translator: ExchangeTranslator) -> None:
    records = record(bpf, outcome=TIMEOUT, response_start=None)
    batch = translator.batch(np.concatenate([record(bpf), records]))
    assert "error.type" not in text(batch, 0)
    assert (text(batch, 1)["error.type"], text(batch, 1)["status"]) == ("timeout", StatusCode.ERROR)
    assert np.isnan(batch.numbers["wirespan.processing.duration"][1])


def test_a_start_that_is_the_return_of_its_call_says_so(bpf: BpfObject, translator: ExchangeTranslator) -> None:
    assert text(translator.batch(record(bpf, flags=SEND_START_UNKNOWN)))["wirespan.timing"] == "after_send"


def test_more_than_one_request_in_a_span_is_marked(bpf: BpfObject, translator: ExchangeTranslator) -> None:
    assert text(translator.batch(record(bpf, flags=PIPELINED)))["wirespan.exchange.pipelined"] is True


def test_only_an_observed_client_is_a_parent(bpf: BpfObject, translator: ExchangeTranslator) -> None:
    client = translator.batch(record(bpf, CLIENT))
    alone, observed = translator.batch(record(bpf)), translator.batch(record(bpf, flags=1))
    assert (alone.parent_span_id[0], observed.parent_span_id[0]) == (0, client.span_id[0])
    assert (alone.trace_id == client.trace_id).all()


def test_a_message_on_one_machine_has_its_producer_as_parent_unless_an_sdk_may_speak_for_that(
    bpf: BpfObject, translator: ExchangeTranslator
) -> None:
    """Of the server's process nothing is known at the client's end."""
    here = {"server": "10.0.0.1", "flags": MESSAGE, "request_size": 0}
    produced, consumed = (translator.batch(record(bpf, role, **here)) for role in (SERVER, CLIENT))
    assert (produced.kind[0], produced.parent_span_id[0]) == (SpanKind.PRODUCER, 0)
    assert (consumed.kind[0], consumed.parent_span_id[0]) == (SpanKind.CONSUMER, produced.span_id[0])
    elsewhere = translator.batch(record(bpf, CLIENT, flags=MESSAGE))
    assert elsewhere.parent_span_id[0] == 0
    traced = record(bpf, CLIENT, request_head=traceparent_head(bpf), request_captured=len(TRACED), server="10.0.0.3")
    both = translator.batch(np.concatenate([record(bpf, CLIENT, **here), traced]))
    assert both.kind[0] == SpanKind.CONSUMER
    assert both.parent_span_id[0] == 0


def test_a_client_of_an_assumed_network_is_a_parent(bpf: BpfObject, counters: Counters) -> None:
    assert make_translator(bpf, counters, "10.0.0.0/24").batch(record(bpf)).parent_span_id[0] != 0
    assert make_translator(bpf, counters, "10.0.1.0/24").batch(record(bpf)).parent_span_id[0] == 0


@pytest.mark.parametrize(("address", "expected"), [("10.1.2.3", "10.1.2.3"), ("2001:db8::1", "2001:db8::1")])
def test_mapped_addresses_are_written_as_ipv4(address: str, expected: str) -> None:
    assert address_text(packed(address).tobytes()) == expected


def test_bytes_behind_the_captured_ones_are_not_looked_at(bpf: BpfObject, translator: ExchangeTranslator) -> None:
    stale = record(bpf, request_captured=0)
    stale[0]["request_head"][:16] = np.frombuffer(b"GET /secret HTTP", "u1")
    assert text(translator.batch(stale))["name"] == "TCP 7000"


def test_a_socket_that_is_connected_to_another_server_has_another_scope(
    bpf: BpfObject, translator: ExchangeTranslator
) -> None:
    first, second = record(bpf, CLIENT), record(bpf, CLIENT, server="10.0.0.3")
    second["connection"]["sequence"] = 1
    batch = translator.batch(np.concatenate([first, second, first]))
    assert [text(batch, row)["server.address"] for row in range(3)] == ["10.0.0.2", "10.0.0.3", "10.0.0.2"]
    assert text(translator.batch(second))["server.address"] == "10.0.0.3"


def test_tables_start_anew_when_they_are_full(
    bpf: BpfObject, counters: Counters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchanges, "LOOKUPS_KEPT", 8)
    translator = make_translator(bpf, counters)
    before = translator.batch(record(bpf)).fragments[0].table
    for host in range(9):
        last = translator.batch(record(bpf, server=f"10.0.1.{host}", cookie=host))
    after = translator.batch(record(bpf)).fragments[0].table
    assert after is not before
    assert len(after) <= 8
    assert text(last)["server.address"] == "10.0.1.8"


def test_more_connections_than_are_remembered_are_looked_up_again(
    bpf: BpfObject, counters: Counters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchanges, "CONNECTIONS_KEPT", 4)
    translator = make_translator(bpf, counters)
    records = np.concatenate([record(bpf, cookie=cookie) for cookie in range(20)])
    batch = translator.batch(records)
    assert [text(batch, row)["name"] for row in range(20)] == ["TCP 7000"] * 20


def with_heads(records: np.ndarray, request: bytes, response: bytes = b"") -> np.ndarray:
    for side, head in (("request", request), ("response", response)):
        records[0][f"{side}_head"][: len(head)] = np.frombuffer(head, "u1")
        records[0][f"{side}_captured"] = len(head)
    return records


def test_heads_are_remembered_by_hash_alone(bpf: BpfObject, translator: ExchangeTranslator) -> None:
    secret = b"eightby8" * 8
    batch = translator.batch(
        with_heads(record(bpf), b"GET /a HTTP/1.1\r\nAuthorization: " + secret, b"HTTP/1.1 200 OK")
    )
    batches = [batch, translator.batch(with_heads(record(bpf), b"GET /a;b HTTP/1.1\r\nCookie: " + secret))]
    tables = translator.operations._by_key, translator._scopes._by_connection, translator._resource_ids
    arrays = [array for table in tables for array in (table._keys, table._values)]
    arrays += [text.data for batch in batches for text in batch.texts.values()]
    assert not any(b"eightby8" in array.tobytes() for array in arrays)


class Reading(Http1Parser):
    """Remembers which requests it was asked to read."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []

    def summarise(self, request: bytes, response: bytes) -> Summary:
        self.requests.append(request)
        return super().summarise(request, response)


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> Reading:
    """The only parser that is asked; 8 heads are remembered."""
    parser = Reading()
    monkeypatch.setattr(registry, "PARSERS", (parser,))
    monkeypatch.setattr(operations, "HTTP1_PARSER", parser)
    monkeypatch.setattr(exchanges, "HEADS_KEPT", 8)
    return parser


def get(path: bytes) -> bytes:
    """A request that is hashed whole: it has a parameter."""
    return b"GET %s;v=1 HTTP/1.1\r\n" % path


def test_frequent_heads_stay_known_whatever_passes_by(bpf: BpfObject, counters: Counters, reading: Reading) -> None:
    translator = make_translator(bpf, counters)
    for number in range(100):
        for path in (b"/hot", b"/%d" % number):
            batch = translator.batch(with_heads(record(bpf), get(path)))
            assert text(batch)["url.path"] == path.decode()
    assert reading.requests.count(get(b"/hot")) == 1
    assert len(reading.requests) == 101


def test_what_is_new_is_remembered_after_any_number_of_heads(
    bpf: BpfObject, counters: Counters, reading: Reading
) -> None:
    translator = make_translator(bpf, counters)
    translator.batch(
        np.concatenate([with_heads(record(bpf), get(b"/%d" % number)) for number in range(1_000)]),
    )
    for _ in range(3):
        translator.batch(with_heads(record(bpf), get(b"/new")))
    assert reading.requests.count(get(b"/new")) == 1


def test_a_parser_is_asked_once_for_requests_that_differ_in_path_query_and_headers(
    bpf: BpfObject, counters: Counters, reading: Reading
) -> None:
    translator = make_translator(bpf, counters)
    for role, prefix in ((SERVER, ("url.path", "")), (CLIENT, ("url.full", "http://10.0.0.2:7000"))):
        requests = [b"GET /item/%d?q=%d HTTP/1.1\r\nX: %d\r\n" % (n, n, n) for n in range(100)]
        batch = translator.batch(
            np.concatenate(
                [with_heads(record(bpf, role, cookie=role), request, b"HTTP/1.1 200 OK\r\n") for request in requests]
            )
        )
        name, origin = prefix
        assert [text(batch, row)[name] for row in range(100)] == [f"{origin}/item/{n}" for n in range(100)]
    assert len(reading.requests) == 2  # one a view


def distinct_url(record: np.ndarray, number: int) -> None:
    with_heads(record, b"GET /%s/%09d HTTP/1.1\r\nHost: " % (b"a" * 150, number))


def distinct_client(record: np.ndarray, number: int) -> None:
    record[0]["connection"]["cookie"] = number
    record[0]["connection"]["remote_address"] = np.frombuffer(b"\xfd" + number.to_bytes(15, "big"), "u1")


def distinct_process(record: np.ndarray, number: int) -> None:
    record[0]["process"]["tgid"] = 2**22 + number


@pytest.mark.parametrize("distinguish", [distinct_url, distinct_client, distinct_process])
def test_what_is_remembered_takes_little_memory_however_much_passes(
    bpf: BpfObject, translator: ExchangeTranslator, distinguish: Callable[[np.ndarray, int], None]
) -> None:
    assert most_memory(bpf, translator, distinguish) < 9e6


def distinct_query(record: np.ndarray, number: int) -> None:
    with_heads(record, b"GET /%s?%09d HTTP/1.1\r\nHost: " % (b"a" * 150, number))


def distinct_header(record: np.ndarray, number: int) -> None:
    with_heads(record, b"GET / HTTP/1.1\r\nX-Id: %09d%s\r\n" % (number, b"a" * 150))


def distinct_key(record: np.ndarray, number: int) -> None:
    with_heads(record, b"*2\r\n$3\r\nGET\r\n$159\r\n%09d%s\r\n" % (number, b"a" * 150), b"$-1\r\n")


@pytest.mark.parametrize("distinguish", [distinct_query, distinct_header, distinct_key])
def test_what_is_captured_takes_little_memory_however_much_differs(
    bpf: BpfObject, counters: Counters, distinguish: Callable[[np.ndarray, int], None]
) -> None:
    capture = Capture(query_strings=True, request_headers=("x-id",), query_text=QueryText.KEYS)
    translator = make_translator(bpf, counters, capture=capture)
    assert most_memory(bpf, translator, distinguish) < 14e6


def most_memory(
    bpf: BpfObject, translator: ExchangeTranslator, distinguish: Callable[[np.ndarray, int], None]
) -> float:
    """Bytes that are kept at most while 10,240 records pass, each different from all others."""
    encode_requests(translator.batch(record(bpf)))
    tracemalloc.start()
    before, most = tracemalloc.get_traced_memory()[0], 0
    for first in range(0, 10_240, 1_024):
        records = np.repeat(record(bpf), 1_024)
        for row in range(1_024):
            distinguish(records[row : row + 1], first + row)
        encode_requests(translator.batch(records))
        del records
        gc.collect()
        most = max(most, tracemalloc.get_traced_memory()[0] - before)
    tracemalloc.stop()
    return most


def test_a_process_is_looked_up_again_after_an_error_of_the_system(
    bpf: BpfObject, translator: ExchangeTranslator, counters: Counters
) -> None:
    records = np.repeat(record(bpf), 3)
    ticks = int(Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()[19])
    records["process"]["tgid"] = os.getpid()
    records["process"]["start_time"] = ticks * (1_000_000_000 // os.sysconf("SC_CLK_TCK"))
    comm = Path("/proc/self/comm").read_bytes().rstrip(b"\n")
    records["process"]["comm"] = np.frombuffer(comm.ljust(16, b"\0"), "u1")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        without_descriptors = translator.batch(records)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    found = [translator.batch(records) for _ in range(2)]
    paths = [
        batch.resources.resources[batch.resource[-1]].get("process.executable.path")
        for batch in (without_descriptors, *found)
    ]
    assert paths == [None, *[os.readlink("/proc/self/exe")] * 2]
    assert counters.snapshot()["wirespan.processes.unresolved", (("reason", "error"),)] == 1


def test_error_replies_of_pipelined_commands_have_failed_and_those_that_name_another_server_have_not(
    bpf: BpfObject, counters: Counters
) -> None:
    answers = [None, "ERR", "MOVED", "ASK", None]
    records = np.concatenate([record(bpf, position=position) for position in range(len(answers))])
    records["outcome"][-1] = TIMEOUT
    translator = budgeted_translator(bpf, counters)
    summaries = [(registry.RESP_PARSER, ("GET", answer)) for answer in answers]
    assert len(translator.batch_of_summaries(records, summaries)) == len(answers)
    assert counters.snapshot()["wirespan.exchanges.failed", ()] == 2
