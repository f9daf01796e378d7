"""The receiver of OTLP: what arrives is handed on as it came, and what cannot be is refused as the protocol says."""

from __future__ import annotations

import gc
import gzip
import http.client
import json
import socket
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress

import grpc
import pytest
from backports import zstd
from google.rpc import status_pb2
from google.rpc.error_details_pb2 import RetryInfo

from support.foreign_batches import REQUESTS, count_items, every_request, every_span
from support.processes import free_port
from support.receiving import METHOD_OF, Receiving, Taking, receiving
from support.waiting import wait_until
from wirespan.exporters.encoded_json import request_json
from wirespan.pipeline.component import Context, Outcome, Outputs, Signal, StartError
from wirespan.pipeline.counters import Counters
from wirespan.receiver.otlp import intake
from wirespan.receiver.otlp.receiver import FACTORY

ITEMS: dict[Signal, str] = {"traces": "spans", "metrics": "metric_points", "logs": "log_records"}
SPANS = every_span(3).SerializeToString()
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "identity": bytes,
    "gzip": gzip.compress,
    "zstd": zstd.compress,
    "zlib": zlib.compress,
    "deflate": zlib.compress,
}

of_each_signal = pytest.mark.parametrize("signal", ITEMS)


@pytest.fixture(scope="module")
def running() -> Iterator[Receiving]:
    with receiving() as started:
        yield started


@pytest.fixture
def receiver(running: Receiving) -> Receiving:
    running.taking.batches.clear()
    return running


@of_each_signal
@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip], ids=["none", "gzip"])
def test_a_request_by_grpc_is_handed_on_as_it_came(
    signal: Signal, compression: grpc.Compression, receiver: Receiving
) -> None:
    request = every_request()[signal]
    before = receiver.count(f"accepted_{ITEMS[signal]}", "grpc")
    assert receiver.call(signal, request.SerializeToString(), compression) == b""
    (batch,) = receiver.taking.batches
    assert (batch.signal, batch.data, batch.items) == (signal, request.SerializeToString(), count_items(request))
    assert receiver.count(f"accepted_{ITEMS[signal]}", "grpc") == before + count_items(request)


@of_each_signal
@pytest.mark.parametrize("encoding", ["", *COMPRESS])
def test_a_request_by_http_is_handed_on_as_it_came(signal: Signal, encoding: str, receiver: Receiving) -> None:
    request = every_request()[signal]
    body = request.SerializeToString()
    headers = {"Content-Encoding": encoding} if encoding else {}
    response = receiver.post(f"/v1/{signal}", COMPRESS.get(encoding, bytes)(body), headers)
    assert (response.status, response.headers["content-type"], response.body) == (200, "application/x-protobuf", b"")
    (batch,) = receiver.taking.batches
    assert (batch.signal, batch.data, batch.items) == (signal, request.SerializeToString(), count_items(request))


@of_each_signal
@pytest.mark.parametrize("encoding", ["", "gzip"])
def test_json_is_handed_on_as_the_same_request_in_protobuf(signal: Signal, encoding: str, receiver: Receiving) -> None:
    request = every_request()[signal]
    body = request_json(request).encode()
    headers = {"Content-Type": "application/json; charset=utf-8", "Content-Encoding": encoding}
    response = receiver.post(f"/v1/{signal}", gzip.compress(body) if encoding else body, headers)
    assert (response.status, response.headers["content-type"], response.body) == (200, "application/json", b"{}")
    (batch,) = receiver.taking.batches
    assert REQUESTS[signal].FromString(batch.data) == request


def test_a_request_says_from_which_address_it_came(receiver: Receiving) -> None:
    receiver.call("traces", SPANS)
    receiver.post("/v1/traces", SPANS)
    assert [batch.sender for batch in receiver.taking.batches] == ["127.0.0.1", "127.0.0.1"]


def test_so_does_one_to_a_server_on_all_interfaces() -> None:
    ports = free_port(), free_port()
    settings = [{"endpoint": f":{port}"} for port in ports]
    with receiving(None, *settings) as started:
        for address in ("[::1]", "127.0.0.1"):
            with grpc.insecure_channel(f"{address}:{ports[0]}") as channel:
                channel.unary_unary(METHOD_OF["traces"])(SPANS, timeout=10)
            connection = http.client.HTTPConnection(address.strip("[]"), ports[1], timeout=10)
            connection.request("POST", "/v1/traces", SPANS, {"Content-Type": "application/x-protobuf"})
            assert connection.getresponse().status == 200
            connection.close()
    assert [batch.sender for batch in started.taking.batches] == ["::1", "::1", "127.0.0.1", "127.0.0.1"]


def test_a_body_in_chunks_and_several_requests_on_a_connection_are_taken(receiver: Receiving) -> None:
    assert receiver.post("/v1/traces", iter([SPANS[:7], SPANS[7:]]), {"Transfer-Encoding": "chunked"}).status == 200
    with socket.create_connection(("127.0.0.1", receiver.http_port)) as connection:
        head = (
            b"POST /v1/traces HTTP/1.1\r\nHost: h\r\nContent-Type: application/x-protobuf\r\nContent-Length: %d\r\n\r\n"
        )
        connection.sendall((head % len(SPANS) + SPANS) * 3)  # without waiting for answers
        answers = b""
        while answers.count(b"HTTP/1.1 200") < 3:
            answers += connection.recv(1000)
    assert [batch.items for batch in receiver.taking.batches] == [3] * 4


def test_a_client_that_asks_first_is_told_to_go_on(receiver: Receiving) -> None:
    head = b"POST /v1/traces HTTP/1.1\r\nHost: h\r\nContent-Type: application/x-protobuf\r\nContent-Length: %d\r\n"
    with socket.create_connection(("127.0.0.1", receiver.http_port)) as connection:
        connection.sendall(head % len(SPANS) + b"Expect: 100-continue\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 100")
        connection.sendall(SPANS)
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("body", [b"", b"\x0a\x00"])
def test_a_request_without_items_is_fine_and_goes_nowhere(body: bytes, receiver: Receiving) -> None:
    assert receiver.call("logs", body) == b""
    assert receiver.post("/v1/logs", body).status == 200
    assert receiver.taking.batches == []


MALFORMED = [
    ("/v1/traces", b"\xff" * 10, {}),
    ("/v1/traces", SPANS[:-1], {}),
    ("/v1/traces", SPANS, {"Content-Encoding": "gzip"}),
    ("/v1/traces", gzip.compress(SPANS)[:-9], {"Content-Encoding": "gzip"}),
    ("/v1/traces", gzip.compress(SPANS) + b"x", {"Content-Encoding": "gzip"}),
    ("/v1/traces", SPANS, {"Content-Encoding": "zstd"}),
    ("/v1/traces", zstd.compress(SPANS)[:-9], {"Content-Encoding": "zstd"}),
    ("/v1/traces", zstd.compress(SPANS) + b"x", {"Content-Encoding": "zstd"}),
    ("/v1/traces", b"", {"Content-Encoding": "zstd"}),
    ("/v1/traces", b"{", {"Content-Type": "application/json"}),
    ("/v1/traces", b"[]", {"Content-Type": "application/json"}),
    ("/v1/traces", b"\xff", {"Content-Type": "application/json"}),
    (
        "/v1/traces",
        b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"xyz"}]}]}]}',
        {"Content-Type": "application/json"},
    ),
    (
        "/v1/traces",
        b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"ab"}]}]}]}',
        {"Content-Type": "application/json"},
    ),
    ("/v1/traces", b'{"resourceSpans":5}', {"Content-Type": "application/json"}),
    ("/v1/logs", b'{"resourceLogs":' + b"[" * 100_000, {"Content-Type": "application/json"}),
    ("/v1/logs", b'{"resourceLogs":[{"schemaUrl":"\\ud800"}]}', {"Content-Type": "application/json"}),
]


@pytest.mark.parametrize(("path", "body", "headers"), MALFORMED)
def test_what_is_no_request_is_refused_for_good_and_counted(
    path: str, body: bytes, headers: dict[str, str], receiver: Receiving
) -> None:
    before = receiver.refused_requests("http", "malformed")
    response = receiver.post(path, body, headers)
    assert response.status == 400
    if "Content-Type" in headers:
        assert json.loads(response.body)["code"] == 3
    else:
        assert status_pb2.Status.FromString(response.body).code == 3
    assert receiver.refused_requests("http", "malformed") == before + 1
    assert receiver.taking.batches == []


def test_what_is_no_request_by_grpc_is_an_invalid_argument(receiver: Receiving) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        receiver.call("traces", b"\xff" * 10)
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT  # type: ignore[attr-defined]
    assert receiver.refused_requests("grpc", "malformed") == 1


@pytest.mark.parametrize(
    ("path", "method", "headers", "status", "said"),
    [
        ("/v1/traces", "POST", {"Content-Type": "text/plain"}, 415, None),
        ("/v1/traces", "POST", {"Content-Type": ""}, 415, None),
        (
            "/v1/traces",
            "POST",
            {"Content-Encoding": "br"},
            415,
            ("accept-encoding", "identity, gzip, zstd, zlib, deflate"),
        ),
        ("/v1/traces", "GET", {}, 405, ("allow", "POST")),
        ("/v1/traces", "HEAD", {}, 405, ("allow", "POST")),
        ("/v1/profiles", "POST", {}, 404, None),
        ("/", "POST", {}, 404, None),
    ],
)
def test_what_is_not_served_is_refused_with_its_status(
    path: str, method: str, headers: dict[str, str], status: int, said: tuple[str, str] | None, receiver: Receiving
) -> None:
    response = receiver.post(path, SPANS, headers, method)
    assert response.status == status
    assert said is None or response.headers[said[0]] == said[1]
    assert receiver.taking.batches == []


def test_only_the_compressions_that_are_configured_are_taken() -> None:
    with receiving(http_settings={"compression_algorithms": ["gzip"]}) as receiver:
        assert receiver.post("/v1/traces", gzip.compress(SPANS), {"Content-Encoding": "gzip"}).status == 200
        for encoding in ("zstd", "identity", ""):
            response = receiver.post("/v1/traces", COMPRESS.get(encoding, bytes)(SPANS), {"Content-Encoding": encoding})
            assert (response.status, response.headers["accept-encoding"]) == (415, "gzip")


def test_of_a_signal_in_no_pipeline_nothing_is_served() -> None:
    with receiving(signals=frozenset({"logs"})) as receiver:
        with pytest.raises(grpc.RpcError) as raised:
            receiver.call("traces", SPANS)
        assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED  # type: ignore[attr-defined]
        assert receiver.post("/v1/traces", SPANS).status == 404


def test_a_body_too_large_is_refused_whether_its_length_is_said_or_not_and_compressed_or_not() -> None:
    with receiving(http_settings={"max_request_body_size": len(SPANS)}) as receiver:
        assert receiver.post("/v1/traces", SPANS).status == 200
        larger = SPANS + b"\x0a\x00"
        bomb = gzip.compress(bytes(200_000_000))
        dense_bomb = zstd.compress(bytes(20_000_000))
        responses = [
            receiver.post("/v1/traces", larger),
            receiver.post("/v1/traces", iter([larger]), {"Transfer-Encoding": "chunked"}),
            receiver.post("/v1/traces", gzip.compress(larger), {"Content-Encoding": "gzip"}),
            receiver.post("/v1/traces", bomb[:400], {"Content-Encoding": "gzip"}),
            receiver.post("/v1/traces", zstd.compress(larger), {"Content-Encoding": "zstd"}),
            receiver.post("/v1/traces", dense_bomb[:400], {"Content-Encoding": "zstd"}),
        ]
        assert [response.status for response in responses] == [413] * 6
        assert receiver.refused_requests("http", "too_large") == 6


def test_a_message_too_large_for_grpc_is_refused_for_good() -> None:
    with receiving(grpc_settings={"max_recv_msg_size_mib": 1}) as receiver:
        for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
            with pytest.raises(grpc.RpcError) as raised:
                receiver.call("traces", every_span(1, size=1_100_000).SerializeToString(), compression)
            assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # type: ignore[attr-defined]
            assert "grpc-status-details-bin" not in dict(raised.value.trailing_metadata())  # type: ignore[attr-defined]


def test_a_sender_is_told_when_to_try_again_if_there_is_no_room() -> None:
    with receiving(Taking(Outcome.BUSY)) as receiver:
        response = receiver.post("/v1/traces", SPANS)
        assert (response.status, response.headers["retry-after"]) == (503, "1")
        with pytest.raises(grpc.RpcError) as raised:
            receiver.call("traces", SPANS)
        error = raised.value
        assert error.code() is grpc.StatusCode.UNAVAILABLE  # type: ignore[attr-defined]
        details = dict(error.trailing_metadata())["grpc-status-details-bin"]  # type: ignore[attr-defined]
        retry = RetryInfo()
        assert status_pb2.Status.FromString(details).details[0].Unpack(retry)
        assert retry.retry_delay.seconds == 1
        for transport in ("grpc", "http"):
            assert receiver.count("refused_spans", transport) == 3
            assert receiver.count("accepted_spans", transport) == 0


def test_a_batch_that_is_lost_by_a_defect_is_not_asked_for_again() -> None:
    def fail() -> None:
        raise ZeroDivisionError

    for taking in (Taking(Outcome.FAILED), Taking(before=fail)):
        with receiving(taking) as receiver:
            assert receiver.post("/v1/traces", SPANS).status == 500
            with pytest.raises(grpc.RpcError) as raised:
                receiver.call("traces", SPANS)
            assert raised.value.code() is grpc.StatusCode.INTERNAL  # type: ignore[attr-defined]


def test_bodies_that_all_together_are_too_much_are_refused_until_there_is_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(intake, "IN_HAND", 0)
    entered, leave = threading.Event(), threading.Event()

    def wait() -> None:
        entered.set()
        leave.wait(10)

    with receiving(Taking(before=wait), http_settings={"max_request_body_size": len(SPANS) + 10}) as receiver:
        first = threading.Thread(target=receiver.post, args=("/v1/traces", SPANS))
        first.start()
        assert entered.wait(10)
        assert receiver.post("/v1/traces", SPANS).status == 503
        leave.set()
        first.join()
        assert receiver.post("/v1/traces", SPANS).status == 200
        assert receiver.refused_requests("http", "no_room") == 1


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"POST /v1/tra",
        b"POST /v1/traces HTTP/1.1\r\nHost: h\r\nContent-Type: application/x-protobuf\r\nContent-Length: 9\r\n\r\nx",
    ],
    ids=["nothing", "a part of the head", "a part of the body"],
)
def test_a_client_that_goes_silent_is_let_go_of(sent: bytes) -> None:
    with receiving(http_settings={"read_timeout": "200ms", "idle_timeout": "200ms"}) as receiver:
        with socket.create_connection(("127.0.0.1", receiver.http_port)) as connection:
            connection.sendall(sent)
            connection.settimeout(5)
            answer = connection.recv(1000)
        assert answer.startswith(b"HTTP/1.1 408") if sent else not answer
        assert receiver.post("/v1/traces", SPANS).status == 200


def test_streams_of_grpc_that_never_send_their_request_hold_up_nobody(receiver: Receiving) -> None:
    release = threading.Event()

    def never() -> Iterator[bytes]:
        release.wait(20)
        yield SPANS

    with grpc.insecure_channel(f"127.0.0.1:{receiver.grpc_port}") as channel:
        method = channel.stream_unary("/opentelemetry.proto.collector.trace.v1.TraceService/Export")
        silent = [method.future(never(), timeout=20) for _ in range(50)]
        time.sleep(0.2)
        assert receiver.call("traces", SPANS) == b""
        for call in silent:
            call.cancel()
        release.set()


def test_silent_streams_of_grpc_give_way_when_others_wait_for_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "IN_HAND", 3 * 3 * 4 * 1024 * 1024)  # three at a time of each signal
    release = threading.Event()

    def never() -> Iterator[bytes]:
        release.wait(20)
        yield SPANS

    with receiving() as receiver, grpc.insecure_channel(f"127.0.0.1:{receiver.grpc_port}") as channel:
        method = channel.stream_unary("/opentelemetry.proto.collector.trace.v1.TraceService/Export")
        silent = [method.future(never(), timeout=20) for _ in range(6)]
        time.sleep(0.2)
        began = time.monotonic()
        assert receiver.call("traces", SPANS) == b""
        assert time.monotonic() - began < 4
        assert [call.code() for call in silent[:3]] == [grpc.StatusCode.UNAVAILABLE] * 3
        assert receiver.refused_requests("grpc", "timeout") >= 3
        release.set()


@pytest.mark.parametrize("requests", [(), (SPANS, SPANS)], ids=["none", "two"])
def test_a_stream_of_grpc_with_another_number_of_requests_than_one_is_malformed(
    requests: tuple[bytes, ...], receiver: Receiving
) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{receiver.grpc_port}") as channel:
        method = channel.stream_unary("/opentelemetry.proto.collector.trace.v1.TraceService/Export")
        with pytest.raises(grpc.RpcError) as raised:
            method(iter(requests), timeout=5)
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT  # type: ignore[attr-defined]
    assert receiver.taking.batches == []


def test_a_request_that_was_answered_is_not_held_until_garbage_is_collected() -> None:
    large = every_span(2_000, size=1_000).SerializeToString()
    with receiving() as receiver:
        receiver.taking.before = receiver.taking.batches.clear
        receiver.call("traces", large)
        gc.collect()
        gc.disable()
        tracemalloc.start()
        try:
            for _ in range(20):
                receiver.call("traces", large)
                assert receiver.post("/v1/traces", large).status == 200
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
            gc.enable()
    assert held < 5 * len(large)


def test_requests_of_grpc_that_wait_for_their_turn_are_all_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "IN_HAND", 3 * 2 * 4 * 1024 * 1024)  # two at a time of each signal
    with (
        receiving(Taking(before=lambda: time.sleep(0.01))) as receiver,
        grpc.insecure_channel(f"127.0.0.1:{receiver.grpc_port}") as channel,
    ):
        method = channel.unary_unary("/opentelemetry.proto.collector.trace.v1.TraceService/Export")
        large = every_span(2_000, size=1_000).SerializeToString()
        calls = [method.future(large, timeout=20) for _ in range(80)]
        assert [call.result() for call in calls] == [b""] * 80
        assert receiver.count("accepted_spans", "grpc") == 160_000


def test_a_client_that_leaves_in_the_middle_leaves_nothing_behind(receiver: Receiving) -> None:
    head = (
        b"POST /v1/traces HTTP/1.1\r\nHost: h\r\nContent-Type: application/x-protobuf\r\nContent-Length: 1000\r\n\r\n"
    )
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", receiver.http_port)) as connection:
            connection.sendall(head + b"x" * 500)
    room = receiver.receiver._intake.rooms["traces"]
    wait_until("all room is given back", lambda: room._taken == 0)
    assert receiver.post("/v1/traces", SPANS).status == 200


def test_what_is_not_http_is_told_so(receiver: Receiving) -> None:
    with socket.create_connection(("127.0.0.1", receiver.http_port)) as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 400")


def test_a_head_without_end_is_refused(receiver: Receiving) -> None:
    with socket.create_connection(("127.0.0.1", receiver.http_port)) as connection:
        connection.sendall(b"POST /v1/traces HTTP/1.1\r\nHost: h\r\nX: " + b"x" * 40_000)
        assert connection.recv(1000).startswith(b"HTTP/1.1 431")


def test_more_connections_than_there_may_be_are_told_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wirespan.pipeline.http_server.CONNECTIONS", 3)
    with receiving() as receiver:
        held = [socket.create_connection(("127.0.0.1", receiver.http_port)) for _ in range(3)]
        time.sleep(0.2)
        with socket.create_connection(("127.0.0.1", receiver.http_port)) as one_more:
            assert one_more.recv(1000).startswith(b"HTTP/1.1 503")
        for connection in held:
            connection.close()
        wait_until("there is room", lambda: receiver.post("/v1/traces", SPANS).status == 200)


def test_a_port_in_use_is_said_at_the_start() -> None:
    with receiving() as receiver:
        for protocol, port in (("grpc", receiver.grpc_port), ("http", receiver.http_port)):
            settings = FACTORY.config.model_validate({"protocols": {protocol: {"endpoint": f"127.0.0.1:{port}"}}})
            other = FACTORY.create(settings, Context("other", Counters()), Outputs(logs=Taking()))
            with pytest.raises(StartError, match=f"cannot listen on 127.0.0.1:{port}"):
                other.start()


def test_a_request_under_way_is_finished_at_shutdown_and_none_is_taken_after() -> None:
    entered, leave = threading.Event(), threading.Event()

    def wait() -> None:
        entered.set()
        leave.wait(10)

    with receiving(Taking(before=wait)) as receiver:
        statuses: list[int] = []
        thread = threading.Thread(target=lambda: statuses.append(receiver.post("/v1/traces", SPANS).status))
        thread.start()
        assert entered.wait(10)
        threading.Timer(0.3, leave.set).start()
        receiver.receiver.shutdown(time.monotonic() + 5)
        thread.join()
        assert statuses == [200]
        with pytest.raises(ConnectionRefusedError):
            receiver.post("/v1/traces", SPANS)
        receiver.receiver.shutdown(time.monotonic() + 5)


def test_idle_connections_do_not_hold_up_shutdown() -> None:
    with receiving() as receiver:
        idle = socket.create_connection(("127.0.0.1", receiver.http_port))
        with grpc.insecure_channel(f"127.0.0.1:{receiver.grpc_port}") as channel:
            grpc.channel_ready_future(channel).result(5)
            began = time.monotonic()
            receiver.receiver.shutdown(time.monotonic() + 5)
            assert time.monotonic() - began < 1
        assert idle.recv(1) == b""


def test_what_an_exporter_lets_go_of_at_the_end_is_still_counted() -> None:
    entered, leave = threading.Event(), threading.Event()

    def wait() -> None:
        entered.set()
        leave.wait(10)

    with receiving(Taking(Outcome.BUSY, wait)) as receiver:
        thread = threading.Thread(target=send, args=(receiver,))
        thread.start()
        assert entered.wait(10)
        receiver.receiver.shutdown(time.monotonic() + 0.1)
        threading.Timer(0.2, leave.set).start()
        receiver.receiver.settle(5)
        assert receiver.count("refused_spans", "http") == 3
        thread.join()


def send(receiver: Receiving) -> None:
    with suppress(ConnectionError, http.client.HTTPException):
        receiver.post("/v1/traces", SPANS)
