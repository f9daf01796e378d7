"""TLS of the OTLP exporters: whom they trust, and what they say when they cannot."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from sink import Certificate, Sink
from support.certificates import certificate as self_signed
from support.exporting import Start
from support.waiting import wait_until
from wirespan.pipeline.component import StartError


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """Self-signed, for the name ``backend.test``."""
    made, key = self_signed(tmp_path_factory.mktemp("tls"), "backend.test")
    return Certificate(key, made)


@pytest.mark.requires_command("openssl")
def test_tls_trusts_the_configured_certificate_and_name(protocol: str, start: Start, certificate: Certificate) -> None:
    with Sink(certificate=certificate) as sink:
        port = sink.grpc_port if protocol == "otlp_grpc" else sink.http_port
        tls = {"ca_file": str(certificate.certificate), "server_name_override": "backend.test"}
        running = start(protocol, endpoint=f"https://127.0.0.1:{port}", tls=tls)
        running.consume(7)
        wait_until("spans sent", lambda: running.sent(7))
        assert sink.span_count == 7


@pytest.mark.requires_command("openssl")
def test_tls_refuses_a_certificate_nobody_vouches_for(protocol: str, start: Start, certificate: Certificate) -> None:
    with Sink(certificate=certificate) as sink:
        port = sink.grpc_port if protocol == "otlp_grpc" else sink.http_port
        retry = {"enabled": False}
        running = start(protocol, endpoint=f"https://127.0.0.1:{port}", retry_on_failure=retry)
        running.consume(7)
        wait_until("spans given up", lambda: running.count("send_failed_spans") == 7)
        assert sink.span_count == 0


@pytest.mark.requires_command("openssl")
@pytest.mark.parametrize(
    ("transport", "scheme", "port", "encrypted", "advice"),
    [
        ("otlp_grpc", "https", "grpc_port", False, "speaks no TLS on this port: use http://"),
        ("otlp_http", "https", "http_port", False, "speaks no TLS on this port: use http://"),
        ("otlp_grpc", "https", "grpc_port", True, "is not trusted: see tls.ca_file"),
        ("otlp_http", "https", "http_port", True, "is not trusted: see tls.ca_file"),
        ("otlp_grpc", "http", "grpc_port", True, "may speak TLS"),
        ("otlp_http", "http", "http_port", True, "may speak TLS"),
        ("otlp_grpc", "http", "http_port", False, "use otlp_http"),
    ],
)
def test_a_backend_that_speaks_otherwise_is_logged_with_what_to_change(
    transport: str, scheme: str, port: str, encrypted: bool, advice: str, start: Start, certificate: Certificate,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    with Sink(certificate=certificate if encrypted else None) as sink:
        running = start(transport, endpoint=f"{scheme}://127.0.0.1:{getattr(sink, port)}")
        running.consume(7)
        wait_until("a first failure", lambda: "Will retry" in caplog.text)
        assert advice in vars(caplog.records[0])["advice"]


#: what gRPC's own lines would mix with
FAILING = """
from wirespan.exporters.otlp_grpc import GrpcTransport, OtlpGrpcSettings
from wirespan.exporters.sending import RetryableError
from wirespan.pipeline.tls import Material
try:
    GrpcTransport(OtlpGrpcSettings(endpoint="https://127.0.0.1:{port}"), Material()).send("traces", b"", 5)
except RetryableError:
    print("failed")
"""


@pytest.mark.parametrize("verbosity", [None, "INFO"])
def test_grpc_writes_nothing_to_stderr_unless_the_user_asked_for_it(verbosity: str | None) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GRPC_")}
    with Sink(http_port=None) as sink:
        run = subprocess.run(
            [sys.executable, "-c", FAILING.format(port=sink.grpc_port)],
            env=environment | ({"GRPC_VERBOSITY": verbosity} if verbosity else {}),
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert run.stdout == "failed\n"
    assert ("handshake" in run.stderr.lower()) == (verbosity is not None)


@pytest.mark.requires_command("openssl")
def test_http_can_be_told_not_to_verify(start: Start, certificate: Certificate) -> None:
    with Sink(certificate=certificate) as sink:
        endpoint = f"https://127.0.0.1:{sink.http_port}"
        running = start("otlp_http", endpoint=endpoint, tls={"insecure_skip_verify": True})
        running.consume(7)
        wait_until("spans sent", lambda: running.sent(7))


@pytest.mark.requires_command("openssl")
def test_without_authorities_of_its_own_it_trusts_those_of_the_machine(
    protocol: str, start: Start, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.certificate))
    with Sink(certificate=certificate) as sink:
        port = sink.grpc_port if protocol == "otlp_grpc" else sink.http_port
        running = start(protocol, endpoint=f"https://127.0.0.1:{port}", tls={"server_name_override": "backend.test"})
        running.consume(7)
        wait_until("spans sent", lambda: running.sent(7))


def test_a_certificate_that_cannot_be_read_is_said_at_start(protocol: str, start: Start) -> None:
    with pytest.raises(StartError, match=r"/nowhere/ca\.pem"):
        start(protocol, endpoint="https://127.0.0.1:1", tls={"ca_file": "/nowhere/ca.pem"})
