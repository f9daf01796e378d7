"""The search for a trace context in C, against a definition in Python: on valid and malformed headers, damaged, and cut at
any byte; what lies behind the captured bytes is stale."""

from __future__ import annotations

import random
import re
from functools import cache
from typing import NamedTuple

import numpy as np
import pytest

from support.fuzzing import bounded_runs, damaged
from wirespan.pipeline.counters import Counters
from wirespan.receiver.clock import Clock
from wirespan.receiver.exchanges import ExchangeTranslator
from wirespan.receiver.ids import DEFAULT_KEY, IdSource
from wirespan.receiver.instrumentation import Instrumentation
from wirespan.receiver.kernel.libbpf import BpfObject
from wirespan.receiver.kernel.session import abi_of, object_path
from wirespan.receiver.process import ProcessTable
from wirespan.receiver.trace_context import Context, TraceContexts

LINE = b"GET / HTTP/1.1\r\n"
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
VALID = f"00-{TRACE}-{PARENT}-01".encode()


class Reader:
    """What the kernel in C says of requests to a port, each given with how many bytes it had beyond the captured ones."""

    def __init__(self) -> None:
        with BpfObject.open(object_path()) as programs:
            self.dtype, abi = programs.btf.dtype("exchange"), abi_of(programs.btf)
            self.protocols = programs.btf.enum("protocol")
        counters = Counters()
        ids, processes = IdSource(DEFAULT_KEY, 1), ProcessTable(counters)
        self._translator = ExchangeTranslator(
            abi, Clock(counters), ids, processes, counters, instrumentation=Instrumentation("both")
        )
        self._scopes, self._operations = self._translator._scopes, self._translator.operations

    @property
    def room(self) -> int:
        return int(self.dtype["request_head"].shape[0])

    def read(self, requests: list[bytes], port: int = 80, missing: int = 0, http2: bool = False) -> TraceContexts:
        """http2: the connection began with the preface."""
        records = np.zeros(len(requests), self.dtype)
        records["protocol"] = self.protocols["PROTOCOL_HTTP2" if http2 else "PROTOCOL_UNKNOWN"]
        records["connection"]["role"], records["connection"]["local_port"] = 2, port
        records["connection"]["cookie"] = port
        records["request_head"] = 0x41
        for record, request in zip(records, requests, strict=True):
            captured = request[: self.room]
            record["request_head"][: len(captured)] = np.frombuffer(captured, np.uint8)
            record["request_captured"], record["request_size"] = len(captured), len(request) + missing
        views = self._scopes.views_of(self._scopes.of_records(records))
        return self._operations.of_heads(records, views, self._scopes.views, self._scopes.origins)[2]


@cache
def reader() -> Reader:
    return Reader()


class Found(NamedTuple):
    flags: Context
    trace: str = ""
    parent: str = ""


def found(contexts: TraceContexts, row: int = 0) -> Found:
    flags = Context(int(contexts.flags[row]))
    if not flags & Context.FOUND:
        return Found(flags)
    high, low = contexts.trace_ids[row].tolist()
    return Found(flags, f"{high:016x}{low:016x}", f"{contexts.parents[row]:016x}")


def read(request: bytes, port: int = 80, missing: int = 0) -> Found:
    return found(reader().read([request], port, missing))


def defined(request: bytes, cut: bool) -> Found:
    """The same by regular expressions."""
    lines = request.split(b"\n")
    whole = lines[:-1]
    if not whole:
        return Found(Context.CUT if cut and re.match(rb"[A-Z]+ [!-~]", lines[0]) else Context(0))
    if not re.fullmatch(rb"[A-Z]+ [!-~][^\n]* HTTP/1\.[^\n]\r", whole[0]):
        return Found(Context(0))
    values, ended = [], False
    for line in whole[1:]:
        if line in (b"", b"\r"):
            ended = True
            break
        header = re.fullmatch(rb"traceparent:[ \t\r]*([^\n]*?)[ \t\r]*", line, re.IGNORECASE)
        values += [header[1]] if header else []
    if not values:
        return Found(Context.CUT if cut and not ended else Context(0))
    valid = re.fullmatch(rb"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[^\n]*)?", values[0])
    if len(values) > 1 or not valid or not int(valid[2], 16) or not int(valid[3], 16):
        return Found(Context.INVALID)
    if valid[1] == b"00" and valid[5] is not None:
        return Found(Context.INVALID)
    sampled = Context.SAMPLED if int(valid[4], 16) & 1 else Context(0)
    return Found(Context.FOUND | sampled, valid[2].decode(), valid[3].decode())


@pytest.mark.parametrize(
    ("value", "flags"),
    [
        (VALID, Context.FOUND | Context.SAMPLED),
        (VALID[:-2] + b"00", Context.FOUND),
        (VALID[:-2] + b"03", Context.FOUND | Context.SAMPLED),  # level 2: the trace id is random
        (b"cc" + VALID[2:] + b"-what-comes", Context.FOUND | Context.SAMPLED),
        (b"cc" + VALID[2:], Context.FOUND | Context.SAMPLED),
        (b"cc" + VALID[2:] + b".what", Context.INVALID),
        (VALID + b"-what", Context.INVALID),
        (b"ff" + VALID[2:], Context.INVALID),
        (VALID.upper(), Context.INVALID),
        (VALID.replace(TRACE.encode(), b"0" * 32), Context.INVALID),
        (VALID.replace(PARENT.encode(), b"0" * 16), Context.INVALID),
        (VALID.replace(b"-00f", b"_00f"), Context.INVALID),
        (VALID[:-1], Context.INVALID),
        (b"", Context.INVALID),
    ],
)
def test_a_header_counts_only_as_it_is_specified(value: bytes, flags: Context) -> None:
    request = LINE + b"Host: h\r\nTraceParent: \t" + value + b" \r\nAccept: */*\r\n\r\n"
    expected = Found(flags, TRACE, PARENT) if flags & Context.FOUND else Found(flags)
    assert read(request) == expected == defined(request, False)


def test_a_header_given_twice_counts_as_malformed() -> None:
    header = b"traceparent: " + VALID + b"\r\n"
    assert read(LINE + header + header + b"\r\n") == Found(Context.INVALID)
    assert read(LINE + header + b"\r\n" + header).flags == Context.FOUND | Context.SAMPLED  # in the body


@pytest.mark.parametrize(
    "request_line", [b"*1\r\n", b"\0\0\0\1\r\n", b"get / HTTP/1.1\r\n", b"GET / HTTP/2.0\r\n", b""]
)
def test_only_requests_of_http_1_have_headers(request_line: bytes) -> None:
    assert read(request_line + b"traceparent: " + VALID + b"\r\n\r\n", missing=1) == Found(Context(0))


def test_a_head_cut_at_any_byte_has_its_header_whole_or_says_that_it_is_cut() -> None:
    request = LINE + b"Host: h\r\ntraceparent: " + VALID + b"\r\nAccept: */*\r\n\r\n"
    whole = request.index(VALID) + len(VALID) + 2
    for end in range(6, len(request)):
        expected = Found(Context.CUT) if end < whole else Found(Context.FOUND | Context.SAMPLED, TRACE, PARENT)
        assert read(request[:end], missing=len(request) - end) == expected == defined(request[:end], True), end


def test_a_request_that_is_whole_is_not_cut() -> None:
    assert read(LINE + b"\r\n", missing=1000) == Found(Context(0))
    assert read(LINE + b"Host: h\r\n", missing=0) == Found(Context(0))


@pytest.mark.parametrize(
    ("request_head", "port", "flags"),
    [
        (b"POST /v1/traces HTTP/1.1\r\n", 4318, Context.OTLP_TRACES),
        (b"POST /v1/traces HTTP/1.1\r\n", 80, Context(0)),
        (b"GET /v1/traces HTTP/1.1\r\n", 4318, Context(0)),
        (b"POST /v1/things HTTP/1.1\r\n", 4318, Context(0)),
        (b"POST /v1/logs HTTP/1.1\r\ncontent-type: application/x-protobuf\r\n", 80, Context.OTLP_OTHER),
        (b"POST /otlp/v1/metrics?a=b HTTP/1.1\r\nContent-Type:application/x-protobuf\r\n", 80, Context.OTLP_OTHER),
        (b"POST /v1/traces HTTP/1.1\r\nUser-Agent: OTel-OTLP-Exporter-Python/1.30\r\n", 80, Context.OTLP_TRACES),
        (b"POST /v1/traces HTTP/1.1\r\nContent-Type: application/json\r\n", 80, Context(0)),
        (b"\0\0\4\1\4\0\0\0\1abcd", 4317, Context.OTLP_TRACES),
        (b"*1\r\n$4\r\nPING\r\n", 4317, Context(0)),
    ],
)
def test_an_export_is_told_by_its_path_and_who_says_so(request_head: bytes, port: int, flags: Context) -> None:
    assert read(request_head + b"\r\n", port) == Found(flags)


@pytest.mark.parametrize(("port", "flags"), [(4317, Context.OTLP_TRACES), (80, Context(0))])
def test_an_export_by_grpc_is_told_by_its_port_where_the_kernel_saw_the_preface(port: int, flags: Context) -> None:
    assert found(reader().read([b""], port, http2=True)) == Found(flags)


_VALUES = (VALID, VALID[:-1] + b"0", b"cc" + VALID[2:] + b"-x", VALID.upper(), VALID[:-1], VALID + b"-", b"")
_NAMES = (b"traceparent:", b"traceparent: ", b"TRACEPARENT:\t", b"traceparent :", b"tracestate: ", b"x-traceparent: ")
_OTHERS = (b"Host: h", b"T", b"", b"Cookie: " + b"c" * 60, b"traceparent", b"te: trailers")
_ENDS = (b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r\r\n")


def drawn(source: random.Random) -> bytes:
    request = source.choice((LINE, LINE, LINE, b"POST /a?b HTTP/1.0\r\n", b"PUT * HTTP/1.1\n", b"X\r\n"))
    for _ in range(source.randrange(5)):
        line = source.choice(_NAMES) + source.choice(_VALUES) if source.random() < 0.5 else source.choice(_OTHERS)
        request += line + source.choice(_ENDS)
    return damaged(source, request + source.choice((b"", b"\r\n", b"\n")))


def test_whatever_the_request_is_the_two_agree() -> None:
    for source in bounded_runs():
        requests = [drawn(source)[: source.choice((64, 200, reader().room))] for _ in range(500)]
        missing = source.randrange(2)
        contexts = reader().read(requests, missing=missing)
        for row, request in enumerate(requests):
            assert found(contexts, row) == defined(request, missing > 0), request
        joined = [found(contexts, row).flags & Context.FOUND for row in range(len(requests))]
        assert contexts.flagged == sum(map(bool, joined))
