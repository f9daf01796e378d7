"""The configuration of the receiver of OTLP: upstream's keys, and what is wrong in words that help."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import grpc
import pytest
import urllib3

from support.certificates import certificate
from support.foreign_batches import every_span
from support.receiving import METHOD_OF, Taking, receiving
from wirespan.pipeline.component import Context, Outputs, StartError
from wirespan.pipeline.counters import Counters
from wirespan.pipeline.listening import Address, address_of
from wirespan.receiver.otlp.intake import IN_HAND
from wirespan.receiver.otlp.receiver import FACTORY
from wirespan.service.config import load
from wirespan.service.document import ConfigurationError

SPANS = every_span(3).SerializeToString()


@pytest.mark.parametrize(
    ("endpoint", "address"),
    [
        ("localhost:4317", Address("localhost", 4317)),
        ("0.0.0.0:4317", Address("0.0.0.0", 4317)),
        (":4317", Address("", 4317)),
        ("[::1]:4317", Address("::1", 4317)),
    ],
)
def test_an_endpoint_is_a_host_and_a_port(endpoint: str, address: Address) -> None:
    assert address_of(endpoint) == address


@pytest.mark.parametrize("endpoint", ["localhost", "http://localhost:4317", "::1:4317", "localhost:65536", "a:b", ""])
def test_what_is_no_endpoint_is_refused(endpoint: str) -> None:
    with pytest.raises(ValueError, match="is not host:port"):
        address_of(endpoint)


CONFIGURATION = """\
receivers:
  otlp: {first}
  otlp/second: {second}
exporters: {{debug: }}
service: {{pipelines: {{logs: {{receivers: [otlp, otlp/second], exporters: [debug]}}}}}}
"""


def problems(folder: Path, first: str, second: str = "{protocols: {grpc: {endpoint: 'localhost:1'}}}") -> list[str]:
    file = folder / "w.yaml"
    file.write_text(CONFIGURATION.format(first=first, second=second))
    try:
        load(file, {})
    except ConfigurationError as error:
        return [str(problem).removeprefix(f"{file}:") for problem in error.problems]
    return []


@pytest.mark.parametrize(
    ("first", "problem"),
    [
        ("{protocols: {grpc: , http: }}", None),
        ("", "2: receivers.otlp.protocols: is required"),
        ("{protocols: }", "2: receivers.otlp.protocols: null is not a mapping"),
        ("{protocols: {}}", "2: receivers.otlp.protocols: needs grpc, http or both, as in protocols: {grpc: , http: }"),
        ("{protocols: {htp: }}", '2: receivers.otlp.protocols.htp: unknown key; did you mean "http"?'),
        (
            "{protocols: {http: {endpoint: 4318}}}",
            "2: receivers.otlp.protocols.http.endpoint: 4318 is not text; write it in quotes",
        ),
        (
            "{protocols: {http: {traces_url_path: /v1/logs}}}",
            "2: receivers.otlp.protocols.http: traces_url_path, metrics_url_path and logs_url_path have to differ",
        ),
        (
            "{protocols: {grpc: {tls: {cert_file: a}}}}",
            "2: receivers.otlp.protocols.grpc.tls.key_file: is required",
        ),
    ],
)
def test_a_wrong_receiver_is_told_so(first: str, problem: str | None, tmp_path: Path) -> None:
    assert problems(tmp_path, first) == ([] if problem is None else [problem])


def test_the_largest_request_there_can_be_finds_room() -> None:
    largest = {"grpc": {"max_recv_msg_size_mib": 100}, "http": {"max_request_body_size": IN_HAND}}
    with pytest.raises(ValueError, match="less than or equal to 104857600"):
        FACTORY.config.model_validate({"protocols": largest})
    assert IN_HAND > 104_857_600


def test_two_receivers_on_one_port_are_refused(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, "{protocols: {http: {endpoint: 'localhost:4317'}}}", "{protocols: {grpc: }}")
    assert problem == ('3: receivers.otlp/second: with "otlp", it listens on the same port 4317; give one another')


def test_a_component_that_takes_spans_in_columns_alone_cannot_stand_behind_it(tmp_path: Path) -> None:
    file = tmp_path / "w.yaml"
    file.write_text(
        "receivers: {otlp: {protocols: {grpc: }}}\nexporters: {terminal: }\n"
        "service: {pipelines: {traces: {receivers: [otlp], exporters: [terminal]}}}\n"
    )
    with pytest.raises(ConfigurationError) as raised:
        load(file, {})
    assert str(raised.value).endswith(
        'service.pipelines.traces.exporters[0]: "terminal" takes no spans that come by OTLP, as those of "otlp" do'
    )


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    made, key = certificate(tmp_path_factory.mktemp("server"), "server.test")
    return {"cert_file": str(made), "key_file": str(key)}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    made, key = certificate(tmp_path_factory.mktemp("client"), "client.test")
    return {"cert_file": str(made), "key_file": str(key)}


def post_by_tls(port: int, ca: str, **identity: str) -> int:
    pool = urllib3.PoolManager(ca_certs=ca, server_hostname="server.test", assert_hostname="server.test", **identity)
    headers = {"Content-Type": "application/x-protobuf"}
    return pool.request("POST", f"https://127.0.0.1:{port}/v1/traces", SPANS, headers=headers, retries=False).status


def call_by_tls(port: int, ca: str, **identity: bytes) -> bytes:
    credentials = grpc.ssl_channel_credentials(Path(ca).read_bytes(), **identity)
    options = (("grpc.ssl_target_name_override", "server.test"),)
    with grpc.secure_channel(f"127.0.0.1:{port}", credentials, options) as channel:
        answer: bytes = channel.unary_unary(METHOD_OF["traces"])(SPANS, timeout=5)
        return answer


def test_with_tls_a_client_that_trusts_the_certificate_is_served(tls: dict[str, str]) -> None:
    with receiving(grpc_settings={"tls": tls}, http_settings={"tls": tls}) as receiver:
        assert post_by_tls(receiver.http_port, tls["cert_file"]) == 200
        assert call_by_tls(receiver.grpc_port, tls["cert_file"]) == b""


def test_with_authorities_of_clients_one_without_a_certificate_is_not(
    tls: dict[str, str], client: dict[str, str]
) -> None:
    both: dict[str, Any] = {"tls": {**tls, "client_ca_file": client["cert_file"]}}
    with receiving(grpc_settings=both, http_settings=both) as receiver:
        with pytest.raises(urllib3.exceptions.HTTPError):
            post_by_tls(receiver.http_port, tls["cert_file"])
        with pytest.raises(grpc.RpcError):
            call_by_tls(receiver.grpc_port, tls["cert_file"])
        assert post_by_tls(receiver.http_port, tls["cert_file"], **client) == 200
        key, chain = (Path(client[file]).read_bytes() for file in ("key_file", "cert_file"))
        assert call_by_tls(receiver.grpc_port, tls["cert_file"], private_key=key, certificate_chain=chain) == b""


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_certificate_that_cannot_be_read_is_said_at_the_start(protocol: str, tls: dict[str, str]) -> None:
    settings = {"endpoint": "127.0.0.1:0", "tls": {**tls, "key_file": "/nowhere.pem"}}
    config = FACTORY.config.model_validate({"protocols": {protocol: settings}})
    receiver = FACTORY.create(config, Context("otlp", Counters()), Outputs(logs=Taking()))
    with pytest.raises(StartError, match=r"/nowhere\.pem"):
        receiver.start()
    receiver.shutdown(time.monotonic())
