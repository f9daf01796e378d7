"""What the metadata.yaml files say is emitted, and what the code emits, are the same; docs/telemetry.md says it too."""

from __future__ import annotations

import ast
import os
import re
import socket
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from support.telemetry_page import PAGE, metadata, renewed
from support.tls import client_hello, fatal_alert, server_hello
from wirespan.exporters.debug_format import SpanRow, span_row
from wirespan.pipeline.counters import Counters
from wirespan.pipeline.spans import AttributeValue, SpanBatch, SpanKind
from wirespan.receiver.clock import Clock
from wirespan.receiver.exchanges import Abi, ExchangeTranslator
from wirespan.receiver.ids import DEFAULT_KEY, IdSource
from wirespan.receiver.instrumentation import Instrumentation, Mode
from wirespan.receiver.kernel.libbpf import BpfObject
from wirespan.receiver.kernel.session import abi_of, object_path
from wirespan.receiver.kernel.tables import COUNTERS
from wirespan.receiver.process import ProcessTable
from wirespan.receiver.protocols.capturing import Capture
from wirespan.receiver.protocols.http2 import PREFACE
from wirespan.receiver.protocols.redis_text import QueryText
from wirespan.receiver.routes import Routes
from wirespan.receiver.sampling import Sampling
from wirespan.service.emitted import EMITTERS, documented_metrics
from wirespan.service.own_cost import count_process
from wirespan.service.own_telemetry import _Instruments

ROOT = Path(__file__).parents[2]
#: where what is emitted is decided
CODE = [*sorted((ROOT / "receiver").rglob("*.py")), *sorted((ROOT / "exporters").rglob("*.py"))]
CODE += [*sorted((ROOT / "processors").rglob("*.py")), *sorted((ROOT / "extensions").rglob("*.py"))]
CODE += sorted((ROOT / "wirespan" / "service").glob("*.py"))
CODE += [ROOT / "wirespan" / "pipeline" / name for name in ("certificates.py", "defects.py", "secret_file.py")]

SPAN_ATTRIBUTES = metadata("receiver")["span_attributes"]
METRICS = {name: facts for folder in EMITTERS for name, facts in metadata(folder)["metrics"].items()}
EXCHANGE_METRICS = metadata("receiver")["exchange_metrics"]
EXCHANGE_METRIC_ATTRIBUTES = metadata("receiver")["exchange_metric_attributes"]
SEMANTIC_METRICS = metadata("receiver")["semantic_metrics"]
SCOPE_ATTRIBUTES = metadata("receiver")["metric_scope_attributes"]
TYPES = {str: "string", bool: "bool", int: "int", float: "double", tuple: "string[]"}
#: what ``capture`` can ask for
EVERYTHING = Capture(True, ("host",), ("server",), QueryText.LITERALS)
HEADER = re.compile(r"(http\.(?:request|response)\.header)\..*")

OWN_NAME = re.compile(r"wirespan(\.[a-z0-9_]+)+|otelcol_[a-z_]+")
#: in the code too, but entry point groups and a file
NOT_EMITTED = {"wirespan.components", "wirespan.protocols", "wirespan.bpf.o"}

#: as of a client that offers h2 and asks for shop.example; the server has no session id
CLIENT_HELLO = (
    bytes.fromhex("160301004d010000490303")
    + bytes(32)
    + bytes.fromhex("00000213010100001e00000011000f00000c" + b"shop.example".hex() + "00100005000302" + b"h2".hex())
)
SERVER_HELLO = bytes.fromhex("160303002c020000280303") + bytes(32) + bytes.fromhex("001301000000")
DNS_ERRORS = ("host_not_found", "try_again", "no_recovery")
DNS_QUERY = bytes.fromhex("1234010000010000000000000377777703636f6d0000010001")
#: port of the exchange that makes its client an instrumented process
OTLP = 4318
#: port of a message that nobody asked for
MESSAGES = 25

#: port, request, response of exchanges that bring every attribute there is
SAMPLES = (
    (8080, b"GET /items/17?token=secret HTTP/1.1\r\nHost: shop\r\n\r\n", b"HTTP/1.1 200 OK\r\nServer: x\r\n\r\n"),
    (8080, b"GET /a/path/that/is/cut/because/it/does/not/fit/into/a/short/rec", b"HTTP/1.0 503 Busy\r\n\r\n"),
    (8080, b"BREW /pot HTTP/1.1\r\n\r\n", b"HTTP/1.1 404 Not Found\r\n\r\n"),
    (6379, b"*3\r\n$3\r\nSET\r\n$7\r\nuser:42\r\n$1\r\nx\r\n", b"+OK\r\n"),
    (6379, b"*2\r\n$4\r\nLPOP\r\n$7\r\nuser:42\r\n", b"-WRONGTYPE Operation against a key\r\n"),
    (6379, b"*2\r\n$6\r\nNOSUCH\r\n$7\r\nuser:42\r\n", b"-HOMEMADE it failed\r\n"),
    (OTLP, b"POST /v1/traces HTTP/1.1\r\nHost: collector\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"),
    (53, DNS_QUERY, DNS_QUERY[:2] + b"\x83\x82" + DNS_QUERY[4:]),
    (53, DNS_QUERY, DNS_QUERY[:2] + b"\x81\x83" + DNS_QUERY[4:]),
    (53, DNS_QUERY, DNS_QUERY[:2] + b"\x81\x85" + DNS_QUERY[4:]),
    (443, client_hello(protocols=[b"h2"]), server_hello()),
    (443, client_hello(protocols=[b"h2"])[:100], fatal_alert(40)),
    (443, client_hello(), server_hello(b"\3\3", b"\xc0\x2f", b"", b"h2")),
    (443, b"", b""),
    (8443, PREFACE, b""),
    (5432, b"Q\0\0\0\x08END\0", b"C\0\0\0\x0bCOMMIT\0Z\0\0\0\5I"),
    (5432, b"Q\0\0\0\x08END\0", b"E\0\0\0\x19SERROR\0VERROR\0C25P01\0\0Z\0\0\0\5I"),
    (5432, b"Q\0\0\0\x08END\0", b"E\0\0\0\x29SERROR that is long and was cut somewhere at its end"),
    (3306, b"\4\0\0\0\3END", b"\x16\0\0\1\xff\x28\4#42000Syntax error!"),
    (11211, b"\x80" + bytes(23), b"\x81\0\0\0\0\0\0\x82" + bytes(16)),
    (11211, b"get key\r\n", b"SERVER_ERROR out of memory\r\n"),
    (11211, b"get key\r\n", b"CLIENT_ERROR bad command line format\r\n"),
    (MESSAGES, b"", b"220 ready\r\n"),
    (7000, b"\0\0\0\5hello", b"\0\0\0\5world"),
    (7000, b"\0\0\0\5hello", b""),
)


def constants() -> Iterator[str]:
    """Every string in the code that decides what is emitted."""
    for path in CODE:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


@cache
def translated(capture: Capture) -> SpanBatch:
    """Every sample as both ends see it, over IPv4 and IPv6, translated from records as the kernel writes them."""
    opened = BpfObject.open(object_path())
    abi, dtype, protocol = abi_of(opened.btf), opened.btf.dtype("exchange"), opened.btf.enum("protocol")
    opened.close()
    samples = SAMPLES if capture is EVERYTHING else [sample for sample in SAMPLES if sample[0] not in (OTLP, MESSAGES)]
    cases = [(role, v6, *sample) for role in (abi.role_client, abi.role_server) for v6 in (0, 1) for sample in samples]
    records = np.zeros(len(cases), dtype)
    now = time.monotonic_ns()
    records["connection"]["cookie"] = np.arange(len(cases))
    for record, (role, v6, port, request, response) in zip(records, cases, strict=True):
        _fill(record, abi, role, v6, port)
        if port in (443, 8443):  # as the kernel marks connections by what they began with
            record["protocol"] = protocol["PROTOCOL_TLS" if port == 443 else "PROTOCOL_HTTP2"]
        # What exports telemetry is another process than what receives it.
        record["process"]["tgid"] = 2**22 + (port == OTLP and role == abi.role_server)
        for head, data in (("request", request), ("response", response)):
            data = data[: record[f"{head}_head"].size]
            record[f"{head}_head"][: len(data)] = np.frombuffer(data, "u1")
            record[f"{head}_captured"] = record[f"{head}_size"] = len(data)
        record["arrived"], record["request_start"], record["request_end"] = now, now + 1, now + 2
        if response:
            record["response_start"], record["response_end"] = now + 3, now + 4
        if port == MESSAGES:
            record["flags"] = abi.flag_message
            record["request_end"] = record["response_start"] = record["request_start"]
        if not response and not record["protocol"]:
            record["outcome"] = max(abi.outcomes)
            record["flags"] = abi.flag_send_start_unknown | abi.flag_pipelined | abi.flag_resent
    counters = Counters()
    ids = IdSource(DEFAULT_KEY, 1)
    processes = ProcessTable(counters)
    mode: Mode = "both" if capture is EVERYTHING else "skip"
    instrumentation, sampling = Instrumentation(mode), Sampling(0.5 if capture is EVERYTHING else 1.0)
    records["connection"]["sampling"] = sampling.first_level
    translator = ExchangeTranslator(
        abi,
        Clock(counters),
        ids,
        processes,
        counters,
        sampling=sampling,
        capture=capture,
        instrumentation=instrumentation,
        routes=Routes(["/items/{id}"]) if capture is EVERYTHING else None,
    )
    return translator.batch(records)


def _fill(record: Any, abi: Abi, role: int, v6: int, server_port: int) -> None:
    connection = record["connection"]
    address = bytes(15) + b"\1" if v6 else bytes(10) + b"\xff\xff\x7f\0\0\1"
    connection["local_address"] = connection["remote_address"] = np.frombuffer(address, "u1")
    ends = ("local_port", "remote_port") if role == abi.role_server else ("remote_port", "local_port")
    for field, port in zip(ends, (server_port, 40_000), strict=True):
        connection[field] = port
    connection["transport"] = socket.IPPROTO_TCP
    connection["role"] = role
    record["process"]["comm"][:4] = np.frombuffer(b"test", "u1")


def rows(capture: Capture = EVERYTHING) -> list[SpanRow]:
    batch = translated(capture)
    return [span_row(batch, row) for row in range(len(batch))]


def documented_name(attribute: str) -> str:
    return HEADER.sub(r"\1.{name}", attribute)


def assert_documented(name: str, value: AttributeValue, facts: dict[str, Any]) -> None:
    assert TYPES[type(value)] == facts["type"], name
    if isinstance(facts.get("values"), list):
        assert value in facts["values"], name


def test_every_attribute_of_a_span_is_documented_with_its_type_and_values() -> None:
    for row in rows():
        for name, value in row.attributes.items():
            assert_documented(name, value, SPAN_ATTRIBUTES[documented_name(name)])


def test_what_has_to_be_asked_for_is_not_emitted_by_default() -> None:
    emitted = {documented_name(name) for row in rows(Capture()) for name in row.attributes}
    asked_for = {name for name, facts in SPAN_ATTRIBUTES.items() if "option" in facts}
    assert len(asked_for) == 9
    assert emitted == SPAN_ATTRIBUTES.keys() - asked_for
    assert not [value for row in rows(Capture()) for value in row.attributes.values() if "secret" in str(value)]


def test_a_message_has_what_every_span_has_and_nothing_of_a_request() -> None:
    messages = [row for row in rows() if row.kind in (SpanKind.PRODUCER, SpanKind.CONSUMER)]
    assert {row.name for row in messages} == {f"TCP {MESSAGES} push"}
    for row in messages:
        ends = {
            "server.address",
            "server.port",
            "client.address",
            "client.port",
            "process.pid",
            "wirespan.message.kind",
        }
        assert row.attributes.keys() >= ends | {"wirespan.response.size", "wirespan.response.duration"}
        assert not [name for name in row.attributes if "request" in name or name == "wirespan.processing.duration"]
        assert ("wirespan.queue.duration" in row.attributes) is (row.kind is SpanKind.CONSUMER)


def test_every_documented_attribute_is_emitted_on_just_the_documented_kinds() -> None:
    exchanges = [row for row in rows() if row.kind in (SpanKind.CLIENT, SpanKind.SERVER)]
    emitted = {(documented_name(name), row.kind.name) for row in exchanges for name in row.attributes}
    emitted |= {("wirespan.message.kind", row.kind.name) for row in rows() if "wirespan.message.kind" in row.attributes}
    documented = {
        (name, kind) for name, facts in SPAN_ATTRIBUTES.items() for kind in facts.get("kinds", ("CLIENT", "SERVER"))
    }
    assert emitted == documented


def test_every_documented_attribute_is_emitted_for_just_the_documented_protocols() -> None:
    emitted: dict[str, set[object]] = {}
    for row in rows():
        for name in row.attributes:
            emitted.setdefault(documented_name(name), set()).add(row.attributes.get("network.protocol.name"))
    for name, protocols in emitted.items():
        documented = SPAN_ATTRIBUTES[name].get("protocols")
        assert protocols == set(documented) if documented else None in protocols, name


def test_span_names_are_the_documented_ones() -> None:
    assert {row.name for row in rows()} == {
        "GET",
        "GET /items/{id}",
        "POST",
        "HTTP",
        "SET",
        "LPOP",
        "redis",
        "DNS A",
        "TLS handshake",
        "TLS 443",
        "postgresql",
        "mysql",
        "memcached",
        "TCP 7000",
        f"TCP {MESSAGES} push",
    }
    assert metadata("receiver")["span_names"].keys() == {
        *("http", "redis", "dns", "postgresql", "mysql", "memcached", "tls", "unknown")
    }


def test_every_outcome_of_the_kernel_is_a_documented_error_type() -> None:
    opened = BpfObject.open(object_path())
    outcomes = set(abi_of(opened.btf).outcomes.values())
    opened.close()
    assert (
        outcomes | {"{status}", "{code}", "{alert}", "_OTHER", "CLIENT_ERROR", "SERVER_ERROR", *DNS_ERRORS}
        == SPAN_ATTRIBUTES["error.type"]["values"].keys()
    )
    emitted = {row.attributes["error.type"] for row in rows() if "error.type" in row.attributes}
    assert emitted >= {"25P01", "1064", "CLIENT_ERROR", "SERVER_ERROR"}
    assert emitted >= {"handshake_failure", "503", "404", "WRONGTYPE", "_OTHER", *DNS_ERRORS}


def test_every_attribute_of_a_resource_is_documented_with_its_type() -> None:
    documented = metadata("receiver")["resource_attributes"]
    resource = ProcessTable(Counters()).resource(*own_image())
    for name, value in resource.items():
        assert_documented(name, value, documented[name])
    not_shown = documented.keys() - resource.keys()
    assert not_shown <= {"container.id", "k8s.pod.uid", "wirespan.resource.inferred", "{declared}"}
    assert {"container.id", "k8s.pod.uid"} <= set(constants())


def own_image() -> tuple[int, int, int, bytes]:
    """Of this process: thread group, start time, execs, comm."""
    name, _, fields = Path("/proc/self/stat").read_bytes().partition(b" (")[2].rpartition(b") ")
    return os.getpid(), int(fields.split()[19]) * 1_000_000_000 // os.sysconf("SC_CLK_TCK"), 1, name


def test_every_name_of_ours_in_the_code_is_documented_and_the_other_way_round() -> None:
    in_code = {text for text in constants() if OWN_NAME.fullmatch(text)} - NOT_EMITTED
    attributes = SPAN_ATTRIBUTES.keys() | EXCHANGE_METRIC_ATTRIBUTES.keys() | SCOPE_ATTRIBUTES.keys()
    attributes |= metadata("receiver")["resource_attributes"].keys()
    of_pods = metadata("processors/k8s_attributes")
    attributes |= of_pods["resource_attributes"].keys() | of_pods["span_attributes"].keys()
    attributes |= metadata("processors/anomaly")["span_attributes"].keys()
    documented = METRICS.keys() | EXCHANGE_METRICS.keys() | {name for name in attributes if OWN_NAME.fullmatch(name)}
    assert in_code == documented


def test_every_counter_of_the_kernel_has_a_metric() -> None:
    header = re.sub(r"/\*.*?\*/", "", (ROOT / "bpf" / "counters.h").read_text(), flags=re.DOTALL)
    (enumerators,) = re.findall(r"enum counter \{(.*?)\}", header, re.DOTALL)
    assert COUNTERS.keys() == set(re.findall(r"\w+", enumerators)) - {"COUNTERS"}


def test_every_attribute_of_a_counter_is_documented_and_the_other_way_round() -> None:
    """Values that are passed on to a function of the same module are found as strings in the code only."""
    written = {(name, *pair) for name, attributes in COUNTERS.values() for pair in attributes}
    written |= {found for path in CODE for found in literal_attributes(ast.parse(path.read_text()))}
    documented = {
        (name, attribute, value)
        for name, facts in METRICS.items()
        for attribute, values in facts.get("attributes", {}).items()
        for value in values
    }
    assert written <= documented
    passed_on = {value for _, _, value in documented - written if not value.startswith("{")}
    assert passed_on <= set(constants())


def literal_attributes(tree: ast.Module) -> Iterator[tuple[str, str, str]]:
    """Metric, attribute and value of each ``counters.add("metric", amount, attribute="value")``."""
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in ("add", "gauge"):
            name = call.args[0] if call.args else None
            for keyword in call.keywords:
                if isinstance(name, ast.Constant) and isinstance(keyword.value, ast.Constant) and keyword.arg:
                    yield name.value, keyword.arg, keyword.value.value


@pytest.mark.parametrize("name", SEMANTIC_METRICS)
def test_a_semantic_metric_is_of_spans_with_its_attributes(name: str) -> None:
    facts = SEMANTIC_METRICS[name]
    ((of, value),) = facts["of"].items()
    spans = [
        row for row in rows() if row.kind.name == facts["kind"] and row.attributes.get(of, False) in (value, "redis")
    ]
    emitted = {attribute for row in spans for attribute in row.attributes}
    assert set(facts["attributes"]) <= emitted
    assert set(facts.get("unknown", {})) <= set(facts["attributes"])
    assert facts["boundaries"] == sorted(set(facts["boundaries"]))


@pytest.mark.parametrize("name", METRICS | EXCHANGE_METRICS | SEMANTIC_METRICS)
def test_a_metric_has_a_unit_and_a_description_of_a_sentence(name: str) -> None:
    facts = (METRICS | EXCHANGE_METRICS | SEMANTIC_METRICS)[name]
    assert facts["type"] in ("sum", "gauge", "exponential histogram", "histogram", "non-monotonic sum")
    assert re.fullmatch(r"s|By|1|\{[a-z]+\}", facts["unit"])
    assert re.fullmatch(r"[A-Z].*\.", facts["description"])


def test_an_own_metric_is_exported_with_its_documented_unit_and_description() -> None:
    counters, reader = Counters(), InMemoryMetricReader()
    counters.add("wirespan.segments.skipped_bytes", 5, reason="not_captured")
    counters.add("a_plug_in.things", 1)
    count_process(counters)
    instruments = _Instruments(MeterProvider([reader]).get_meter("test"), counters)
    instruments.refresh()
    data = reader.get_metrics_data()
    assert data is not None
    exported = {metric.name: metric for metric in data.resource_metrics[0].scope_metrics[0].metrics}
    for name in ("wirespan.segments.skipped_bytes", "otelcol_process_memory_rss"):
        assert (exported[name].unit, exported[name].description) == documented_metrics()[name]
    assert (exported["a_plug_in.things"].unit, exported["a_plug_in.things"].description) == ("", "")


def test_the_page_has_the_tables_that_the_metadata_make() -> None:
    page = PAGE.read_text()
    assert page == renewed(page), "run: .venv/bin/python tests/support/telemetry_page.py"
