"""Certificates of the receiver of OTLP that change: whoever connects gets the new ones, and nobody is turned away meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import urllib3

from support.certificates import Authority, Pair, replace
from support.foreign_batches import every_span
from support.receiving import METHOD_OF, Receiving, receiving
from support.waiting import wait_until

pytestmark = pytest.mark.requires_command("openssl")
NAME = "server.test"
SPANS = every_span(3).SerializeToString()
REFUSED = (urllib3.exceptions.HTTPError, grpc.RpcError)

of_each_protocol = pytest.mark.parametrize("protocol", ["grpc", "http"])


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authorities") / "one")


@pytest.fixture(scope="module")
def another(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authorities") / "another")


@pytest.fixture
def used(authority: Authority, tmp_path: Path) -> Pair:
    """What the receiver shows."""
    return authority.issue(NAME).copied(tmp_path / "used")


@contextmanager
def served(used: Pair, **tls: object) -> Iterator[Receiving]:
    settings: dict[str, Any] = {"tls": {**used.settings, "reload_interval": "100ms", **tls}}
    with receiving(grpc_settings=settings, http_settings=settings) as receiver:
        yield receiver


@contextmanager
def client(protocol: str, receiver: Receiving, trusted: Authority, shown: Pair | None = None) -> Iterator[Any]:
    """Sends spans with each call, by a connection that stays; raises one of REFUSED."""
    if protocol == "grpc":
        private, chain = (None, None) if shown is None else (shown.key.read_bytes(), shown.certificate.read_bytes())
        credentials = grpc.ssl_channel_credentials(trusted.certificate.read_bytes(), private, chain)
        options = (("grpc.ssl_target_name_override", NAME), ("grpc.use_local_subchannel_pool", 1))
        with grpc.secure_channel(f"127.0.0.1:{receiver.grpc_port}", credentials, options) as channel:
            yield lambda: channel.unary_unary(METHOD_OF["traces"])(SPANS, timeout=5)
        return
    files = {"cert_file": str(shown.certificate), "key_file": str(shown.key)} if shown is not None else {}
    pool = urllib3.PoolManager(
        ca_certs=str(trusted.certificate), server_hostname=NAME, assert_hostname=NAME, timeout=5, retries=False, **files
    )
    url, headers = f"https://127.0.0.1:{receiver.http_port}/v1/traces", {"Content-Type": "application/x-protobuf"}
    yield lambda: pool.request("POST", url, SPANS, headers=headers)
    pool.clear()


def is_served(protocol: str, receiver: Receiving, trusted: Authority, shown: Pair | None = None) -> bool:
    with client(protocol, receiver, trusted, shown) as send:
        try:
            send()
        except REFUSED:
            return False
        return True


def reloads(receiver: Receiving, outcome: str) -> int:
    """Of both protocols, which have the same files."""
    key = ("wirespan.tls.reloads", (("component", "under test"), ("outcome", outcome)))
    return receiver.counters.snapshot().get(key, 0)


@of_each_protocol
@pytest.mark.parametrize("days", [1, -1], ids=["good before", "expired before"])
def test_whoever_connects_after_a_change_is_shown_the_new_certificate(
    days: int, protocol: str, authority: Authority, another: Authority, tmp_path: Path
) -> None:
    used = authority.issue(NAME, days).copied(tmp_path / "used")
    with served(used) as receiver:
        assert is_served(protocol, receiver, authority) is (days > 0)
        assert not is_served(protocol, receiver, another)
        used.become(another.issue(NAME))
        wait_until("the new one is shown", lambda: is_served(protocol, receiver, another))
        assert not is_served(protocol, receiver, authority)
        assert reloads(receiver, "succeeded") >= 1


@of_each_protocol
def test_a_connection_that_there_is_goes_on(
    protocol: str, authority: Authority, another: Authority, used: Pair
) -> None:
    with served(used) as receiver, client(protocol, receiver, authority) as send:
        send()
        used.become(another.issue(NAME))
        wait_until("the new one is shown", lambda: is_served(protocol, receiver, another))
        before = receiver.count("accepted_spans", protocol)
        send()
        assert receiver.count("accepted_spans", protocol) == before + 3


@of_each_protocol
@pytest.mark.parametrize("setting", [{"reload_interval": "100ms"}, {"client_ca_file_reload": True}], ids=str)
def test_clients_of_a_new_authority_are_served_once_the_file_has_that_and_those_of_the_old_one_no_more(
    setting: dict[str, object], protocol: str, authority: Authority, another: Authority, used: Pair, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("wirespan.pipeline.tls._CLIENT_CA_SECONDS", 0.1)
    clients = tmp_path / "clients.pem"
    replace(clients, authority.certificate.read_bytes())
    old, new = authority.issue("client.test"), another.issue("client.test")
    with served(used, **{"reload_interval": "0", **setting, "client_ca_file": str(clients)}) as receiver:
        assert is_served(protocol, receiver, authority, old)
        assert not is_served(protocol, receiver, authority, new)
        assert not is_served(protocol, receiver, authority)
        replace(clients, another.certificate.read_bytes())
        wait_until("the new one is served", lambda: is_served(protocol, receiver, authority, new))
        assert not is_served(protocol, receiver, authority, old)
        assert not is_served(protocol, receiver, authority)


@of_each_protocol
def test_a_client_whose_certificate_has_expired_is_refused(protocol: str, authority: Authority, used: Pair) -> None:
    with served(used, client_ca_file=str(authority.certificate)) as receiver:
        assert not is_served(protocol, receiver, authority, authority.issue("client.test", days=-1))


@of_each_protocol
def test_a_file_that_cannot_be_used_changes_nothing_and_is_said_and_counted(
    protocol: str, authority: Authority, used: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    with served(used) as receiver:
        replace(used.certificate, b"-----BEGIN CERTIFICATE-----\nnone\n-----END CERTIFICATE-----\n")
        wait_until(
            "two looks",
            lambda: is_served(protocol, receiver, authority) and reloads(receiver, "failed") >= 2,
        )
        assert is_served(protocol, receiver, authority)
        (said,) = {vars(record)["error"] for record in caplog.records if "cannot be reloaded" in record.message}
        assert str(used.certificate) in said


@of_each_protocol
def test_nobody_is_turned_away_however_often_certificates_change(
    protocol: str, authority: Authority, used: Pair
) -> None:
    pairs = [authority.issue(f"{NAME}"), used.copied(used.key.parent / "copy")]
    over, outcomes = threading.Event(), list[bool]()

    def keep_connecting() -> None:
        while not over.is_set():
            outcomes.append(is_served(protocol, receiver, authority))

    with served(used) as receiver:
        clients = [threading.Thread(target=keep_connecting) for _ in range(4)]
        for thread in clients:
            thread.start()
        for number in range(20):
            used.become(pairs[number % 2])
            threading.Event().wait(0.15)
        over.set()
        for thread in clients:
            thread.join()
        assert all(outcomes)
        assert len(outcomes) > 20
        assert reloads(receiver, "succeeded") >= 5


def test_no_file_descriptor_is_left_behind_by_a_change(authority: Authority, used: Pair) -> None:
    pairs = [authority.issue(NAME), used.copied(used.key.parent / "copy")]
    with served(used) as receiver:
        before = open_files()
        for number in range(1, 6):
            used.become(pairs[(number + 1) % 2])
            wait_until("a change", lambda number=number: reloads(receiver, "succeeded") >= number)
        wait_until("all are closed", lambda: open_files() == before)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
