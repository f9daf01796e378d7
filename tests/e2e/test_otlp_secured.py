"""In the middle of Collectors, with certificates at both ends of each connection: they change, and nothing is lost or doubled."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import urllib3

from sink import Sink
from support import servers
from support.agent import Agent
from support.certificates import Authority, Pair
from support.foreign_batches import every_span
from support.processes import free_port
from support.waiting import wait_until

pytestmark = [pytest.mark.requires_tool("otelcol"), pytest.mark.requires_command("openssl")]

NAME = "otlp.test"
SPANS = 5
KEYS = {"otlp_grpc": "grpc", "otlp_http": "http"}


@dataclass
class Chain:
    """client → Collector → wirespan → Collector → sink. used: what all of these show; others: what they may show as well."""

    front: servers.Collector
    agent: Agent
    sink: Sink
    port: int
    trusted: Path
    used: Pair
    others: list[Pair]

    def send(self, number: int) -> None:
        request = every_span(SPANS)
        for i, span in enumerate(request.resource_spans[0].scope_spans[0].spans):
            span.span_id = (1 + SPANS * number + i).to_bytes(8, "big")
        url, headers = f"http://127.0.0.1:{self.front.http_port}/v1/traces", {"Content-Type": "application/x-protobuf"}
        assert urllib3.request("POST", url, body=request.SerializeToString(), headers=headers).status == 200

    def shown(self) -> bytes:
        """The certificate that wirespan's receiver shows now."""
        context = ssl.create_default_context(cafile=self.trusted)
        context.load_cert_chain(self.used.certificate, self.used.key)
        pool = urllib3.connection.HTTPSConnection(
            "127.0.0.1", self.port, ssl_context=context, server_hostname=NAME, timeout=5
        )
        pool.connect()
        assert isinstance(pool.sock, ssl.SSLSocket)
        shown = pool.sock.getpeercert(binary_form=True)
        pool.close()
        assert shown is not None
        return shown


@pytest.fixture(params=KEYS)
def chain(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Chain]:
    protocol: str = request.param
    authorities = [Authority(tmp_path / "one"), Authority(tmp_path / "another")]
    trusted, pairs = tmp_path / "trusted.pem", [authority.issue(NAME) for authority in authorities]
    trusted.write_bytes(b"".join(authority.certificate.read_bytes() for authority in authorities))
    used = pairs[0].copied(tmp_path / "used")
    own = {**used.settings, "reload_interval": "200ms"}
    as_server = {"tls": {**own, "client_ca_file": str(trusted)}}
    as_client = {"tls": {**own, "ca_file": str(trusted), "server_name_override": NAME}}
    compression = "zstd" if protocol == "otlp_http" else "gzip"
    with ExitStack() as stack:
        sink = stack.enter_context(Sink(grpc_port=None))
        assert sink.http_port is not None
        behind = stack.enter_context(
            servers.relay(tmp_path / "behind", "otlp_http", sink.http_port, receiver=as_server)
        )
        port, next_port = free_port(), behind.grpc_port if protocol == "otlp_grpc" else behind.http_port
        exporter = {"endpoint": f"https://127.0.0.1:{next_port}", "compression": compression, **as_client}
        configuration: dict[str, Any] = {
            "receivers": {"otlp": {"protocols": {KEYS[protocol]: {"endpoint": f"127.0.0.1:{port}", **as_server}}}},
            "exporters": {protocol: exporter},
            "service": {"pipelines": {"traces": {"receivers": ["otlp"], "exporters": [protocol]}}},
        }
        agent = stack.enter_context(Agent(configuration, tmp_path))
        sending = {"endpoint": f"https://127.0.0.1:{port}", "compression": compression, **as_client}
        front = stack.enter_context(servers.relay(tmp_path / "front", protocol, port, exporter=sending))
        yield Chain(front, agent, sink, port, trusted, used, pairs)


def test_certificates_change_at_every_end_and_each_span_arrives_once(chain: Chain) -> None:
    certificates = [ssl.PEM_cert_to_DER_cert(pair.certificate.read_text()) for pair in chain.others]
    sent = 0
    for change in range(6):
        chain.used.become(chain.others[change % 2])
        for _ in range(20):
            chain.send(sent)
            sent += 1
            threading.Event().wait(0.02)
        wait_until("it is shown", lambda change=change: chain.shown() == certificates[change % 2])
    wait_until("all spans behind", lambda: chain.sink.span_count >= SPANS * sent, timeout=30)
    ids = [span.span_id for _, span in chain.sink.spans]
    assert len(ids) == len(set(ids)) == SPANS * sent
    assert chain.agent.log.count("Certificates were reloaded.") >= 5
