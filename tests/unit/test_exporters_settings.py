"""Configuration of the OTLP exporters: defaults, the environment below the YAML, and what is refused."""

from __future__ import annotations

from contextlib import nullcontext
from importlib import import_module

import pytest
from pydantic import ValidationError

from wirespan.exporters.otlp_grpc import OtlpGrpcSettings
from wirespan.exporters.otlp_http import OtlpHttpSettings
from wirespan.pipeline.duration import parse_duration

pytestmark = pytest.mark.usefixtures("no_otel_variables")
GRPC, HTTP = OtlpGrpcSettings.model_validate, OtlpHttpSettings.model_validate


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5s", 5), ("200ms", 0.2), ("1m30s", 90), ("1.5h", 5400), (".5s", 0.5), ("10us", 1e-5), ("1µs", 1e-6), ("0", 0)],
)
def test_a_duration_is_a_number_and_a_unit_as_in_go(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("value", ["", "5", "s", "5 s", "-5s", "5x", 5, 1.5, True, None, "٣s"])
def test_what_is_no_duration_is_refused_with_an_example(value: object) -> None:
    with pytest.raises(ValueError, match="such as 200ms, 5s or 1m30s"):
        parse_duration(value)


def test_the_defaults_are_the_collectors() -> None:
    settings = GRPC({})
    assert (settings.timeout, HTTP({}).timeout) == (5.0, 30.0)
    queue, retry = settings.sending_queue, settings.retry_on_failure
    assert (queue.enabled, queue.num_consumers, queue.queue_size, queue.sizer) == (True, 10, 1000, "requests")
    assert (retry.initial_interval, retry.multiplier, retry.max_interval, retry.max_elapsed_time) == (5, 1.5, 30, 300)


@pytest.mark.parametrize(
    ("endpoint", "compression"),
    [
        ("http://localhost:4317", "none"),
        ("https://127.0.0.1:4317", "none"),
        ("[::1]:4317", "none"),
        ("localhost:4317", "none"),
        ("http://10.0.0.1:4317", "gzip"),
        ("backend:4317", "gzip"),
        ("localhost.example:4317", "gzip"),
    ],
)
def test_requests_are_compressed_as_the_collectors_are_unless_they_stay_on_this_machine(
    endpoint: str, compression: str
) -> None:
    assert GRPC({"endpoint": endpoint}).compression_to(endpoint) == compression
    for chosen in ("gzip", "none"):
        assert GRPC({"endpoint": endpoint, "compression": chosen}).compression_to(endpoint) == chosen


@pytest.mark.parametrize(
    ("compression", "level", "message"),
    [
        ("gzip", 10, "compression gzip has the levels -1 to 9"),
        ("zstd", 12, "compression zstd has the levels 1 to 11"),
        ("zstd", 0, "compression zstd has the levels 1 to 11"),
        ("none", 1, "compression none has no levels"),
        ("auto", 1, "compression auto has no levels"),
        ("zstd", 11, None),
        ("deflate", -1, None),
    ],
)
def test_a_level_has_to_be_one_of_the_compression(compression: str, level: int, message: str | None) -> None:
    given = {"compression": compression, "compression_params": {"level": level}}
    with pytest.raises(ValidationError, match=message) if message else nullcontext():
        HTTP(given)


@pytest.mark.parametrize(
    ("given", "target", "plaintext"),
    [
        ({"endpoint": "backend:4317"}, "backend:4317", False),
        ({"endpoint": "backend:4317", "tls": {"insecure": True}}, "backend:4317", True),
        ({"endpoint": "http://backend:4317"}, "backend:4317", True),
        ({"endpoint": "https://backend:4317", "tls": {"insecure": True}}, "backend:4317", False),
        ({"endpoint": "[::1]:4317"}, "[::1]:4317", False),
    ],
)
def test_the_scheme_of_a_grpc_endpoint_decides_on_tls(given: dict[str, object], target: str, plaintext: bool) -> None:
    settings = GRPC(given)
    assert (settings.target, settings.plaintext) == (target, plaintext)


def test_the_http_path_is_added_to_endpoint_and_not_to_traces_endpoint() -> None:
    assert HTTP({"endpoint": "http://backend:4318/otlp/"}).url("traces") == "http://backend:4318/otlp/v1/traces"
    assert HTTP({"traces_endpoint": "http://backend/in"}).url("traces") == "http://backend/in"


def test_each_signal_has_its_path_and_its_endpoint_over_http() -> None:
    assert HTTP({"endpoint": "http://backend:4318"}).url("metrics") == "http://backend:4318/v1/metrics"
    prometheus = HTTP({"metrics_endpoint": "http://prometheus:9090/api/v1/otlp/v1/metrics"})
    assert prometheus.url("metrics") == "http://prometheus:9090/api/v1/otlp/v1/metrics"
    assert prometheus.url("traces") == "http://localhost:4318/v1/traces"
    assert (prometheus.backend("metrics"), prometheus.backend("traces")) == ("prometheus:9090", "localhost:4318")
    assert HTTP({}).backend("metrics") == HTTP({}).backend("traces")


def test_a_variable_for_a_signals_endpoint_is_for_that_signal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://everything:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://metrics:2/in")
    assert (HTTP({}).url("traces"), HTTP({}).url("metrics")) == ("http://everything:1/v1/traces", "http://metrics:2/in")
    given = {"traces_endpoint": "http://yaml:3/in"}
    assert (HTTP(given).url("traces"), HTTP(given).url("metrics")) == ("http://yaml:3/in", "http://metrics:2/in")
    assert HTTP({"endpoint": "http://yaml:3"}).url("metrics") == "http://yaml:3/v1/metrics"


def test_the_environment_fills_what_the_yaml_leaves_out(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {
        "ENDPOINT": "http://everything:4317",
        "TIMEOUT": "1500",
        "COMPRESSION": "none",
        "HEADERS": "x-tenant=blue%20sky, authorization=Bearer%20t",
        "CERTIFICATE": "/etc/ca.pem",
    }
    for name, value in variables.items():
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", value)
    for settings in (GRPC({}), HTTP({})):
        assert (settings.endpoint, settings.timeout, settings.compression) == ("http://everything:4317", 1.5, "none")
        assert settings.header_values("traces") == {"x-tenant": "blue sky", "authorization": "Bearer t"}
        assert settings.tls.ca_file == "/etc/ca.pem"


def test_headers_for_one_signal_are_not_sent_with_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "authorization=traces")
    for validate in (GRPC, HTTP):
        assert validate({}).header_values("metrics") == {}
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=everything")
    for validate in (GRPC, HTTP):
        assert validate({}).header_values("traces") == {"authorization": "traces"}
        assert validate({}).header_values("metrics") == {"authorization": "everything"}
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "authorization=m3trics")
    for validate in (GRPC, HTTP):
        assert validate({}).header_values("metrics") == {"authorization": "m3trics"}
        assert "m3trics" not in f"{validate({})!r} {validate({}).model_dump()}"
        for signal in ("traces", "metrics"):
            assert validate({"headers": {"a": "yaml"}}).header_values(signal) == {"a": "yaml"}


def test_headers_for_metrics_that_cannot_be_sent_are_refused_without_their_value(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for value, expected in (
        ("x=s3cret%00", "the value of header x has"),
        ("s3cret", "OTLP_METRICS_HEADERS is not a list"),
    ):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_HEADERS", value)
        for validate in (GRPC, HTTP):
            with pytest.raises(ValidationError, match=expected) as refusal:
                validate({})
            assert "s3cret" not in str(refusal.value.errors()[0]["msg"])


def test_the_yaml_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ENDPOINT", "TRACES_ENDPOINT"):
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", "http://environment:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", "/environment.pem")
    given = {"endpoint": "http://yaml:2", "timeout": "2s", "tls": {"ca_file": "/yaml.pem"}}
    assert (GRPC(given).target, HTTP(given).url("traces")) == ("yaml:2", "http://yaml:2/v1/traces")
    assert (GRPC(given).timeout, GRPC(given).tls.ca_file) == (2.0, "/yaml.pem")


def test_a_variable_for_traces_wins_over_the_general_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://everything:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces:2/in")
    assert GRPC({}).target == "traces:2"
    assert HTTP({}).url("traces") == "http://traces:2/in"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"endpont": "x:1"}, "endpont"),
        ({"endpoint": "ftp://x"}, "neither host:port nor"),
        ({"endpoint": ""}, "endpoint is empty"),
        ({"compression": "zstd"}, "'auto', 'gzip' or 'none'"),
        ({"timeout": 5}, "not a duration"),
        ({"tls": {"insecure_skip_verify": True}}, "give the server's certificate as tls.ca_file"),
        ({"tls": {"cert_file": "/a"}}, "cert_file and key_file are needed together"),
        ({"sending_queue": {"sizer": "bytes"}}, "queue_size is needed with sizer: bytes"),
        ({"sending_queue": {"num_consumers": 0}}, "greater than or equal to 1"),
        ({"sending_queue": {"num_consumers": 257}}, "less than or equal to 256"),
        ({"timeout": "0"}, "must be from 1ms to 1h"),
        ({"timeout": "61m"}, "must be from 1ms to 1h"),
        ({"retry_on_failure": {"initial_interval": "0s"}}, "must be from 1ms to 1h"),
        ({"retry_on_failure": {"max_interval": "2h"}}, "must be from 1ms to 1h"),
        ({"retry_on_failure": {"max_elapsed_time": "721h"}}, "must be from 1ms to 720h, or 0"),
        ({"retry_on_failure": {"multiplier": 101}}, "less than or equal to 100"),
    ],
)
def test_a_setting_that_cannot_work_is_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        GRPC(given)


def test_the_limits_of_durations_are_valid_and_retrying_may_never_be_given_up() -> None:
    retry = {"initial_interval": "1ms", "max_interval": "1h", "max_elapsed_time": 0}
    settings = GRPC({"timeout": "1h", "retry_on_failure": retry})
    assert (settings.timeout, settings.retry_on_failure.max_elapsed_time) == (3600, 0)


@pytest.mark.parametrize("url", ["backend:4318", "http://", "unix:///x"])
def test_an_http_endpoint_is_a_url(url: str) -> None:
    for key in ("endpoint", "traces_endpoint", "metrics_endpoint"):
        with pytest.raises(ValidationError, match="is not an http:// or https:// URL"):
            HTTP({key: url})


@pytest.mark.parametrize("signal", ["", "TRACES_"])
@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("HEADERS", "no equals sign", "is not a list of key=value"),
        ("TIMEOUT", "5s", 'is "5s"; by the OpenTelemetry specification it is a whole number of milliseconds from 1 to'),
        ("TIMEOUT", "1.5", "milliseconds"),
        ("TIMEOUT", "0", "milliseconds"),
        ("TIMEOUT", "3600001", "milliseconds"),
        ("TIMEOUT", "٣", "milliseconds"),
        ("COMPRESSION", "zstd", 'is "zstd"; it can be gzip or none'),
    ],
)
def test_a_variable_that_cannot_be_read_is_named_with_what_it_has_to_be(
    monkeypatch: pytest.MonkeyPatch, signal: str, name: str, value: str, expected: str
) -> None:
    monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{signal}{name}", value)
    with pytest.raises(ValidationError) as refusal:
        GRPC({})
    message = str(refusal.value.errors()[0]["msg"])
    assert f"OTEL_EXPORTER_OTLP_{signal}{name} " in message
    assert expected in message
    assert "no equals sign" not in message, "a header may be a secret"


def test_a_variable_below_a_key_of_the_yaml_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HEADERS", "TIMEOUT", "COMPRESSION"):
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", "nonsense")
    settings = GRPC({"headers": {"a": "b"}, "timeout": "2s", "compression": "none"})
    assert (settings.timeout, settings.compression) == (2.0, "none")


def test_former_type_names_are_known() -> None:
    former = {name: import_module(f"wirespan.exporters.{name}").FACTORY for name in ("otlp_grpc", "otlp_http")}
    assert former["otlp_grpc"].deprecated_names == ("otlp",)
    assert former["otlp_http"].deprecated_names == ("otlphttp",)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (GRPC({}), "http://localhost:4317"),
        (GRPC({"endpoint": "collector:4317"}), "collector:4317"),
        (GRPC({"endpoint": "https://user:secret@collector:4317"}), "https://collector:4317"),
        (HTTP({}), "http://localhost:4318/v1/traces"),
        (HTTP({"traces_endpoint": "https://user:secret@collector/in?key=secret"}), "https://collector/in"),
    ],
)
def test_where_spans_go_is_said_without_secrets(settings: OtlpGrpcSettings | OtlpHttpSettings, said: str) -> None:
    assert settings.destination("traces") == said


@pytest.mark.parametrize("given", ["Bearer s3cret\n", "Bearer s3cret\r\n"])
def test_the_newline_at_the_end_of_a_token_from_a_file_is_not_sent(given: str) -> None:
    for settings in (GRPC({"headers": {"Authorization": given}}), HTTP({"headers": {"Authorization": given}})):
        assert settings.header_values("traces") == {"authorization": "Bearer s3cret"}


def test_a_header_that_cannot_be_sent_is_refused_without_its_value() -> None:
    inside = ["s3cret\r\nx: y", "s3cret\0", "s3cret\n\nx", "s3cret\x7f"]
    refused = [(GRPC, "x", value) for value in [*inside, "s3cret\t", "s3cret\xe9"]]
    refused += [(HTTP, "x", value) for value in [*inside, "s3cret\u20ac"]]
    refused += [(validate, name, "s3cret") for validate in (GRPC, HTTP) for name in ("", "a b", "a:b", "x\n", "\xe9")]
    for validate, name, value in refused:
        with pytest.raises(ValidationError, match="header") as refusal:
            validate({"headers": {name: value}})
        assert "s3cret" not in str(refusal.value.errors()[0]["msg"])
    assert HTTP({"headers": {"x": "caf\xe9\ttwo"}}).header_values("traces") == {"x": "caf\xe9\ttwo"}
