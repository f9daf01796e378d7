"""Certificates of the OTLP exporters that expire and change: nothing is lost, and nothing is sent twice."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from sink import Answer, Certificate, Sink
from support.certificates import Authority, Pair, replace
from support.exporting import Running, Start
from support.waiting import wait_until

pytestmark = pytest.mark.requires_command("openssl")
NAME = "backend.test"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authorities") / "one")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authorities") / "stranger")


@pytest.fixture(scope="module")
def server(authority: Authority) -> Pair:
    return authority.issue(NAME)


def backend(server: Pair, authority: Authority | None = None) -> Sink:
    """authority: that of clients, which then need a certificate."""
    return Sink(
        certificate=Certificate(server.key, server.certificate, None if authority is None else authority.certificate)
    )


def started(start: Start, protocol: str, sink: Sink, ca_file: Path, **tls: object) -> Running:
    port = sink.grpc_port if protocol == "otlp_grpc" else sink.http_port
    given: dict[str, Any] = {"ca_file": str(ca_file), "server_name_override": NAME, "reload_interval": "100ms"}
    return start(protocol, endpoint=f"https://127.0.0.1:{port}", tls=given | tls)


def reloads(running: Running, outcome: str) -> int:
    key = ("wirespan.tls.reloads", (("component", "under test"), ("outcome", outcome)))
    return running.counters.snapshot().get(key, 0)


@pytest.mark.parametrize("reason", ["it has expired", "another authority signed it"])
def test_a_client_that_is_refused_for_its_certificate_delivers_all_once_that_is_renewed(
    reason: str, protocol: str, start: Start, authority: Authority, stranger: Authority, server: Pair, tmp_path: Path
) -> None:
    bad = authority.issue("client.test", days=-1) if reason == "it has expired" else stranger.issue("client.test")
    used = bad.copied(tmp_path / "used")
    with backend(server, authority) as sink:
        running = started(start, protocol, sink, authority.certificate, **used.settings)
        running.consume(7)
        running.consume(8)
        threading.Event().wait(0.5)
        assert sink.span_count == 0
        used.become(authority.issue("client.test"))
        wait_until("spans sent", lambda: running.sent(15))
        assert sink.span_count == 15
        assert reloads(running, "succeeded") == 1


def test_a_backend_with_a_new_authority_is_trusted_once_the_file_has_that(
    protocol: str, start: Start, authority: Authority, stranger: Authority, tmp_path: Path
) -> None:
    trusted = tmp_path / "ca.pem"
    replace(trusted, authority.certificate.read_bytes())
    with backend(stranger.issue(NAME)) as sink:
        running = started(start, protocol, sink, trusted)
        running.consume(7)
        threading.Event().wait(0.5)
        assert sink.span_count == 0
        replace(trusted, stranger.certificate.read_bytes())
        wait_until("spans sent", lambda: running.sent(7))
        assert sink.span_count == 7


def test_a_file_that_cannot_be_used_changes_nothing_and_is_said_and_counted(
    protocol: str, start: Start, authority: Authority, stranger: Authority, server: Pair, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    used = authority.issue("client.test").copied(tmp_path / "used")
    good_key = used.key.read_bytes()
    with backend(server, authority) as sink:
        running = started(start, protocol, sink, authority.certificate, **used.settings)
        for number, broken in enumerate((b"no certificate", stranger.issue("client.test").key.read_bytes(), None)):
            replace(used.key, broken) if broken else used.key.unlink()
            before, sent = reloads(running, "failed"), sink.span_count
            while reloads(running, "failed") < before + 2:
                running.consume(1)
                threading.Event().wait(0.05)
            wait_until("spans sent", lambda sent=sent: sink.span_count > sent)
            said = [record for record in caplog.records if "cannot be reloaded" in record.message]
            assert len(said) == number + 1
        replace(used.key, good_key)
        running.shutdown()
        assert running.count("send_failed_spans") == 0
        assert sink.span_count == running.consumed
        assert str(used.key) in str(vars(said[-1])["error"])


def test_a_request_under_way_is_not_cut_off_when_certificates_change(
    protocol: str, start: Start, authority: Authority, server: Pair, tmp_path: Path
) -> None:
    used = authority.issue("client.test").copied(tmp_path / "used")
    with backend(server, authority) as sink:
        running = started(start, protocol, sink, authority.certificate, **used.settings)
        sink.answers.append(Answer(delay=1.0))
        running.consume(7)
        wait_until("the first request has begun", lambda: not sink.answers)
        used.become(authority.issue("client.test"))
        threading.Event().wait(0.2)
        running.consume(8)
        wait_until("the second one is answered", lambda: running.sent(8))
        assert reloads(running, "succeeded") == 1
        wait_until("so is the first", lambda: running.sent(15))
        assert sink.span_count == 15


def test_without_an_interval_files_are_read_once(
    protocol: str, start: Start, authority: Authority, server: Pair, tmp_path: Path
) -> None:
    used = authority.issue("client.test").copied(tmp_path / "used")
    with backend(server, authority) as sink:
        running = started(start, protocol, sink, authority.certificate, **used.settings, reload_interval="0")
        used.certificate.unlink()
        threading.Event().wait(0.2)
        running.consume(7)
        wait_until("spans sent", lambda: running.sent(7))
        assert reloads(running, "failed") == 0
