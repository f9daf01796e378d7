"""Exporters that say who sends and receivers that ask, with the extensions that know; and that secrets stay where they are."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from click.testing import CliRunner
from google.rpc import status_pb2

from sink import Sink
from support.authenticating import basic, running
from support.exporting import Start
from support.foreign_batches import every_span
from support.receiving import METHOD_OF, Receiving, receiving
from support.waiting import wait_until
from wirespan.extensions import basic_auth, bearer_token_auth
from wirespan.pipeline.component import StartError
from wirespan.service.cli import main
from wirespan.service.config import load
from wirespan.service.document import ConfigurationError

SPANS = every_span(3).SerializeToString()
AUTH = {"authenticator": "who"}
EXTENSIONS: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "basicauth": (
        basic_auth.FACTORY,
        {"htpasswd": {"inline": "bob:s3cret"}},
        {"client_auth": {"username": "bob", "password": "s3cret"}},
    ),
    "bearertokenauth": (bearer_token_auth.FACTORY, {"token": "s3cret"}, {"token": "s3cret"}),
}
RIGHT: dict[str, Mapping[str, str]] = {
    "basicauth": basic("bob", "s3cret"),
    "bearertokenauth": {"authorization": "Bearer s3cret"},
}

of_each_extension = pytest.mark.parametrize("name", EXTENSIONS)


@contextmanager
def asking(name: str, **http_settings: object) -> Iterator[Receiving]:
    factory, server, _ = EXTENSIONS[name]
    with (
        running(factory, **server) as extension,
        receiving(
            grpc_settings={"auth": AUTH}, http_settings={"auth": AUTH, **http_settings}, extensions={"who": extension}
        ) as receiver,
    ):
        yield receiver


@of_each_extension
def test_a_receiver_takes_nothing_from_whom_it_does_not_know(name: str) -> None:
    with asking(name) as receiver:
        for number, headers in enumerate(({}, {"authorization": "Bearer wrong"}, basic("bob", "wrong")), 1):
            response = receiver.post("/v1/traces", SPANS, headers)
            assert response.status == 401
            assert response.headers["www-authenticate"].startswith("Basic" if name == "basicauth" else "Bearer")
            assert status_pb2.Status.FromString(response.body).code == 16
            with pytest.raises(grpc.RpcError) as raised:
                receiver.call("traces", SPANS, metadata=headers)
            assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED  # type: ignore[attr-defined]
            for transport in ("grpc", "http"):
                assert receiver.refused_requests(transport, "unauthenticated") == number
        assert receiver.taking.batches == []
        assert receiver.post("/v1/traces", SPANS, RIGHT[name]).status == 200
        assert receiver.call("traces", SPANS, metadata=RIGHT[name]) == b""
        assert len(receiver.taking.batches) == 2


def test_a_stranger_learns_of_paths_nothing_and_gets_json_for_json() -> None:
    with asking("bearertokenauth") as receiver:
        assert receiver.post("/v1/none", SPANS).status == 401
        response = receiver.post("/v1/traces", b"{}", {"Content-Type": "application/json"})
        assert (response.status, json.loads(response.body)["code"]) == (401, 16)


def test_a_stranger_who_never_sends_what_he_announced_is_told_at_once() -> None:
    with asking("bearertokenauth") as receiver:
        with grpc.insecure_channel(f"127.0.0.1:{receiver.grpc_port}") as channel:
            over = threading.Event()
            method = channel.stream_unary(METHOD_OF["traces"])
            with pytest.raises(grpc.RpcError) as raised:
                method((b"" for _ in range(1) if over.wait(10)), timeout=5)
            over.set()
        assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED  # type: ignore[attr-defined]


def test_a_browser_asks_without_credentials_and_sends_with_them() -> None:
    with asking(
        "bearertokenauth", cors={"allowed_origins": ["https://a"], "allowed_headers": ["authorization"]}
    ) as receiver:
        question = {"Origin": "https://a", "Access-Control-Request-Method": "POST"}
        assert receiver.post("/v1/traces", b"", question, "OPTIONS").status == 204
        refused = receiver.post("/v1/traces", SPANS, {"Origin": "https://a"})
        assert (refused.status, refused.headers["access-control-allow-origin"]) == (401, "https://a")
        assert receiver.post("/v1/traces", SPANS, {"Origin": "https://a", **RIGHT["bearertokenauth"]}).status == 200


def test_who_cannot_be_looked_at_now_may_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(basic_auth, "WAITING", 0)
    with asking("basicauth") as receiver:
        response = receiver.post("/v1/traces", SPANS, RIGHT["basicauth"])
        assert (response.status, response.headers["retry-after"]) == (503, "1")
        with pytest.raises(grpc.RpcError) as raised:
            receiver.call("traces", SPANS, metadata=RIGHT["basicauth"])
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE  # type: ignore[attr-defined]
        assert receiver.refused_requests("http", "no_room") == receiver.refused_requests("grpc", "no_room") == 1


@of_each_extension
def test_an_exporter_shows_with_every_request_who_sends(
    name: str, protocol: str, sink: Sink, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    factory, _, client = EXTENSIONS[name]
    with running(factory, **client) as extension:
        headers = {"x-tenant": "blue", "Authorization": "of the headers"}
        exporter = start(protocol, extensions={"who": extension}, auth=AUTH, headers=headers)
        exporter.consume(1)
        exporter.consume_metrics(1)
        exporter.shutdown()
    for received in (*sink.headers, *sink.metrics_headers):
        assert received["authorization"] == RIGHT[name]["authorization"]
        assert received["x-tenant"] == "blue"
    assert (len(sink.headers), len(sink.metrics_headers)) == (1, 1)
    assert "in the clear" not in caplog.text  # on this machine


def test_a_token_that_changes_is_sent_with_the_next_request(
    protocol: str, sink: Sink, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wirespan.pipeline.secret_file._LOOK_SECONDS", 0.0)
    file = tmp_path / "token"
    file.write_text("one")
    with running(bearer_token_auth.FACTORY, filename=str(file)) as extension:
        exporter = start(protocol, extensions={"who": extension}, auth=AUTH)
        for token in ("one", "another"):
            file.write_text(token)
            exporter.consume(1)
            wait_until(
                "it is sent",
                lambda token=token: sink.headers and sink.headers[-1]["authorization"] == f"Bearer {token}",
            )


def test_it_is_said_when_what_is_secret_leaves_the_machine_in_the_clear(
    protocol: str, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    with running(bearer_token_auth.FACTORY, token="s3cret") as extension:
        for endpoint, said in (("https://192.0.2.1:1", 0), ("http://192.0.2.1:1", 1)):
            start(protocol, endpoint, extensions={"who": extension}, auth=AUTH)
            assert caplog.text.count("Credentials are sent in the clear. Use TLS.") == said


def test_an_extension_of_the_other_end_is_refused_at_the_start(protocol: str, start: Start) -> None:
    with ExitStack() as stack:
        client = stack.enter_context(running(basic_auth.FACTORY, client_auth={"username": "a", "password": "b"}))
        server = stack.enter_context(running(basic_auth.FACTORY, htpasswd={"inline": "a:b"}))
        with pytest.raises(StartError, match='"who" offers no ClientAuthenticator'):
            start(protocol, extensions={"who": server}, auth=AUTH)
        with (
            pytest.raises(StartError, match='"who" offers no ServerAuthenticator'),
            receiving(http_settings={"auth": AUTH}, extensions={"who": client}),
        ):
            pass


CONFIGURATION: dict[str, Any] = {
    "extensions": {
        "basicauth": {"htpasswd": {"file": "/etc/htpasswd", "inline": "bob:s3cret"}},
        "basicauth/client": {
            "client_auth": {"username": "bob", "password": "s3cret", "password_file": "/etc/password"}
        },
        "bearertokenauth": {"token": "s3cret", "filename": "/etc/token", "scheme": "Token"},
        "bearertokenauth/several": {"tokens": ["s3cret", "s3cret2"]},
    },
    "receivers": {
        "otlp": {
            "protocols": {
                "http": {"auth": {"authenticator": "basicauth"}, "tls": {"cert_pem": "public", "key_pem": "s3cret"}},
                "grpc": {"auth": {"authenticator": "bearertokenauth/several"}},
            }
        }
    },
    "exporters": {
        "otlp_grpc": {"auth": {"authenticator": "bearertokenauth"}},
        "otlp_http": {"auth": {"authenticator": "basicauth/client"}},
    },
    "service": {
        "extensions": ["basicauth", "basicauth/client", "bearertokenauth", "bearertokenauth/several"],
        "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["otlp_grpc", "otlp_http"]}},
    },
}


@pytest.mark.usefixtures("no_otel_variables")
def test_print_config_shows_no_secret_and_all_else(tmp_path: Path) -> None:
    file = tmp_path / "w.yaml"
    file.write_text(yaml.safe_dump(CONFIGURATION))
    result = CliRunner().invoke(main, ["print-config", "--config", str(file)])
    assert result.exit_code == 0, result.output
    assert "s3cret" not in result.output
    printed = yaml.safe_load(result.stdout)
    assert printed["extensions"] == {
        "basicauth": {"htpasswd": {"file": "/etc/htpasswd", "inline": "[REDACTED]"}},
        "basicauth/client": {
            "client_auth": {"username": "bob", "password": "[REDACTED]", "password_file": "/etc/password"}
        },
        "bearertokenauth": {"token": "[REDACTED]", "filename": "/etc/token", "scheme": "Token"},
        "bearertokenauth/several": {"tokens": ["[REDACTED]", "[REDACTED]"]},
    }
    http = printed["receivers"]["otlp"]["protocols"]["http"]
    assert http == {"auth": {"authenticator": "basicauth"}, "tls": {"cert_pem": "public", "key_pem": "[REDACTED]"}}


@pytest.mark.usefixtures("no_otel_variables")
def test_a_configuration_shows_no_secret_and_is_valid(tmp_path: Path) -> None:
    file = tmp_path / "w.yaml"
    file.write_text(yaml.safe_dump(CONFIGURATION))
    assert "s3cret" not in repr(load(file, {}))


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        (("extensions", "bearertokenauth", "token"), 17, "the value (not shown) is not text"),
        (("extensions", "basicauth", "htpasswd", "inline"), "bob:$none$s3cret", "line 1 has a hash of an unknown kind"),
        (("extensions", "basicauth", "htpasswd", "inlin"), "bob:s3cret", 'unknown key; did you mean "inline"?'),
        (("exporters", "otlp_grpc", "auth", "authenticator"), "basicauht", 'did you mean "basicauth"?'),
        (("exporters", "otlp_grpc", "auth"), {}, "authenticator: is required"),
    ],
)
@pytest.mark.usefixtures("no_otel_variables")
def test_what_is_wrong_is_said_without_what_is_secret(
    path: tuple[str, ...], value: object, problem: str, tmp_path: Path
) -> None:
    tree = json.loads(json.dumps(CONFIGURATION))
    here = tree
    for key in path[:-1]:
        here = here[key]
    here[path[-1]] = value
    file = tmp_path / "w.yaml"
    file.write_text(yaml.safe_dump(tree))
    with pytest.raises(ConfigurationError) as refusal:
        load(file, {})
    assert problem in str(refusal.value)
    assert "s3cret" not in str(refusal.value)
