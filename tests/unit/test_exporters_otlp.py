"""otlp_grpc and otlp_http against a backend that takes spans, fails, stalls and comes back."""

from __future__ import annotations

import logging
import time
from importlib import import_module

import grpc
import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from pydantic import SecretStr

from sink import Answer, Sink
from support.exporting import QUICK_RETRY, Running, Start, partly, refused, unavailable
from support.otlp_batches import batch_of, spans_of
from support.processes import free_port
from support.waiting import wait_until
from wirespan.exporters.otlp_http import FACTORY, OtlpHttpSettings
from wirespan.pipeline.component import Context
from wirespan.pipeline.counters import Counters


def retry_info(seconds: float) -> bytes:
    detail = Any()
    detail.Pack(RetryInfo(retry_delay=Duration(seconds=int(seconds), nanos=int(seconds % 1 * 1e9))))
    return Status(code=8, message="slow down", details=[detail]).SerializeToString()


def test_every_field_arrives_and_is_counted_as_sent(protocol: str, sink: Sink, start: Start) -> None:
    running, batch = start(protocol), batch_of(100, resources=3)
    running.exporter.consume(batch)
    running.shutdown()
    assert sink.spans == list(spans_of(batch))
    assert running.sent(100)
    assert running.gauge("wirespan.exporter.in_flight_spans") == running.gauge("otelcol_exporter_queue_size") == 0


def test_a_batch_of_7_mib_arrives_in_several_requests(protocol: str, sink: Sink, start: Start) -> None:
    running = start(protocol)
    running.exporter.consume(batch_of(6_000, attribute="x" * 1000))
    running.shutdown()
    assert running.sent(6_000)
    assert sink.span_count == 6_000
    assert sink.request_count == 8


@pytest.mark.parametrize("compression", ["gzip", "none"])
def test_headers_and_compression_are_as_configured(compression: str, protocol: str, sink: Sink, start: Start) -> None:
    running = start(protocol, headers={"X-Tenant": "blue"}, compression=compression)
    running.consume(1)
    running.shutdown()
    (headers,) = sink.headers
    assert headers["x-tenant"] == "blue"
    assert str(headers["user-agent"]).startswith("wirespan/")
    if protocol == "otlp_http":  # gRPC's server shows no compression header
        assert headers.get("content-encoding") == ("gzip" if compression == "gzip" else None)
        assert headers[":path"] == "/v1/traces"


@pytest.mark.parametrize("compression", ["zstd", "zlib", "deflate"])
@pytest.mark.parametrize("level", [None, 1])
def test_over_http_there_are_more_compressions(compression: str, level: int | None, sink: Sink, start: Start) -> None:
    running = start("otlp_http", compression=compression, compression_params={"level": level})
    running.consume(300)
    running.shutdown()
    (headers,) = sink.headers
    assert headers["content-encoding"] == compression
    assert int(str(headers["content-length"])) < sink.byte_count / 5
    assert sink.span_count == 300


def test_a_refused_connection_is_logged_with_what_to_look_at(
    protocol: str, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    running = start(protocol, endpoint=f"http://localhost:{free_port()}")
    running.consume(1)
    wait_until("a first failure", lambda: "Will retry" in caplog.text)
    advice = vars(caplog.records[0])["advice"]
    assert "is the backend running" in advice
    assert "4317 for otlp_grpc and 4318 for otlp_http" in advice


def test_without_retry_the_first_failure_is_the_end(protocol: str, sink: Sink, start: Start) -> None:
    sink.answers.append(unavailable())
    running = start(protocol, retry_on_failure={"enabled": False})
    running.consume(7)
    wait_until("spans given up", lambda: running.count("send_failed_spans") == 7)


def test_a_backend_that_claims_to_reject_more_than_it_got_breaks_no_account(
    protocol: str, sink: Sink, start: Start
) -> None:
    sink.answers.extend([partly(10**12), partly(-5)])
    running = start(protocol)
    running.consume(10)
    running.consume(10)
    running.shutdown()
    assert (running.count("sent_spans"), running.count("send_failed_spans")) == (10, 10)


def test_the_backend_is_given_the_time_it_asks_for(protocol: str, sink: Sink, start: Start) -> None:
    asks = {
        "otlp_grpc": Answer(
            grpc_code=grpc.StatusCode.RESOURCE_EXHAUSTED, headers=(("grpc-status-details-bin", retry_info(0.5)),)
        ),
        "otlp_http": Answer(http_status=429, headers=(("Retry-After", "1"),)),
    }
    sink.answers.append(asks[protocol])
    running = start(protocol)
    begin = time.monotonic()
    running.consume(7)
    wait_until("spans sent", lambda: running.sent(7))
    assert time.monotonic() - begin >= (0.5 if protocol == "otlp_grpc" else 1.0)


def test_a_backend_that_asks_for_centuries_ends_no_consumer(
    protocol: str, sink: Sink, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    asks = {
        "otlp_grpc": Answer(
            grpc_code=grpc.StatusCode.UNAVAILABLE, headers=(("grpc-status-details-bin", retry_info(9_999_999_999)),)
        ),
        "otlp_http": Answer(http_status=503, headers=(("Retry-After", "99999999999"),)),
    }
    sink.answers.append(asks[protocol])
    running = start(protocol, retry_on_failure={**QUICK_RETRY, "max_elapsed_time": "0"})
    running.consume(7)
    wait_until("the failure logged", lambda: bool(caplog.records))
    assert vars(caplog.records[0])["retry_in"] == "3.6e+03s"
    running.shutdown()
    assert running.sent(7), "at shutdown it is tried once more"


def test_grpc_resource_exhausted_without_retry_info_is_permanent(sink: Sink, start: Start) -> None:
    sink.answers.append(Answer(grpc_code=grpc.StatusCode.RESOURCE_EXHAUSTED))
    running = start("otlp_grpc")
    running.consume(7)
    wait_until("spans given up", lambda: running.count("send_failed_spans") == 7)


def test_a_backend_that_never_answers_costs_the_timeout_and_is_retried(protocol: str, sink: Sink, start: Start) -> None:
    sink.answers.append(unavailable(delay=30.0))
    running = start(protocol, timeout="100ms")
    running.consume(7)
    wait_until("spans sent", lambda: running.sent(7))


def test_an_answer_that_is_garbage_is_a_success_like_any_other(protocol: str, sink: Sink, start: Start) -> None:
    sink.answers.append(Answer(body=b"\x0a\xff\xff\xff"))
    running = start(protocol)
    running.consume(7)
    running.shutdown()
    assert running.sent(7)


def test_header_values_never_reach_a_log_or_a_repr(
    protocol: str, sink: Sink, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    sink.answers.extend([unavailable(), refused()])
    running = start(protocol, headers={"authorization": "s3cret"})
    running.consume(1)
    wait_until("spans given up", lambda: running.count("send_failed_spans") == 1)
    factory = import_module(f"wirespan.exporters.{protocol}").FACTORY
    settings = factory.config.model_validate({"headers": {"authorization": "s3cret"}})
    logged = " ".join(str(vars(record)) for record in caplog.records)
    assert "s3cret" not in f"{logged} {settings!r} {settings.model_dump()}"


def test_a_defect_is_logged_with_its_place_and_without_what_it_says(
    sink: Sink, no_otel_variables: None, caplog: pytest.LogCaptureFixture
) -> None:
    checked = OtlpHttpSettings.model_validate({"endpoint": f"http://127.0.0.1:{sink.http_port}"})
    unchecked = checked.model_copy(update={"headers": {"authorization": SecretStr("Bearer s3cret\n")}})
    counters = Counters()
    exporter = FACTORY.create(unchecked, Context("under test", counters))
    exporter.start()
    running = Running(exporter, counters)
    running.consume(7)
    wait_until("spans given up", lambda: running.count("send_failed_spans") == 7)
    running.shutdown()
    (record,) = [record for record in caplog.records if "defect" in record.message]
    assert vars(record)["error"] == "ValueError"
    assert "putheader" in vars(record)["trace"]
    assert "s3cret" not in f"{caplog.text} {[vars(each) for each in caplog.records]}"


def test_repeated_failures_are_logged_once_in_a_while(
    sink: Sink, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    sink.answers.extend([refused()] * 20)
    running = start("otlp_http")
    for _ in range(20):
        running.consume(1)
    wait_until("spans given up", lambda: running.count("send_failed_spans") == 20)
    assert len([record for record in caplog.records if "refuses" in record.message]) == 1
