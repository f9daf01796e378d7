"""TLS of the OTLP exporters: whom they trust, and what they say when they cannot."""

from __future__ import annotations

import subprocess

import pytest

from sink import Certificate, Sink
from support.exporting import Start
from support.waiting import wait_until
from wirespan.pipeline.component import StartError


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """Self-signed, for the name ``backend.test``."""
    folder = tmp_path_factory.mktemp("tls")
    made = Certificate(folder / "key.pem", folder / "certificate.pem")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=backend.test"),
            *("-addext", "subjectAltName=DNS:backend.test", "-keyout", made.key, "-out", made.certificate),
        ],
        check=True,
        capture_output=True,
    )
    return made


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
def test_http_can_be_told_not_to_verify(start: Start, certificate: Certificate) -> None:
    with Sink(certificate=certificate) as sink:
        endpoint = f"https://127.0.0.1:{sink.http_port}"
        running = start("otlp_http", endpoint=endpoint, tls={"insecure_skip_verify": True})
        running.consume(7)
        wait_until("spans sent", lambda: running.sent(7))


def test_a_certificate_that_cannot_be_read_is_said_at_start(protocol: str, start: Start) -> None:
    with pytest.raises(StartError, match=r"/nowhere/ca\.pem"):
        start(protocol, endpoint="https://127.0.0.1:1", tls={"ca_file": "/nowhere/ca.pem"})
