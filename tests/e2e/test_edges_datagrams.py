"""UDP and DNS where they are not on one machine's loopback, where lookups fail, and where they are not to be seen."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from threading import Thread

import pytest

from sink import Sink
from support.agent import COMMAND, Agent
from support.dns import dig, dnsmasq
from support.exchanges import PROGRAMS, assert_all_accounted, assert_all_exported, assert_paired, of_kind, watch
from support.namespaces import Network
from support.nodes import inside
from support.processes import Process, free_port
from support.spans import from_messages
from support.waiting import wait_until

pytestmark = pytest.mark.requires_bpf

EXCHANGES = 1000
SERVER = PROGRAMS / "datagram_server.py"
CLIENT = PROGRAMS / "datagram_client.py"
RESOLVER = "127.0.0.154"


def test_datagrams_between_two_namespaces_through_a_translated_address(tmp_path: Path, two_nodes: Network) -> None:
    address, port = two_nodes.server.address, free_port()
    serving = two_nodes.server.command(sys.executable, SERVER, str(port), "--address", address)
    asking = [sys.executable, CLIENT, two_nodes.service, str(port), "--exchanges", str(EXCHANGES)]
    with Process("datagram_server", serving, tmp_path) as server, watch(tmp_path, port) as agent:
        server.wait_for_log("ready")
        subprocess.run(two_nodes.client.command(*asking), check=True, timeout=60)
        spans = agent.stop()
    assert_paired(spans, EXCHANGES, ordered=False)
    assert_all_exported(agent, 2 * EXCHANGES)
    peers = {(span["kind"], span["attributes"]["network.peer.address"]) for span in spans}
    assert peers == {("CLIENT", two_nodes.service), ("SERVER", two_nodes.client.address)}


@pytest.mark.requires_command("dnsmasq", "dig")
def test_lookups_between_two_namespaces_through_a_translated_address(tmp_path: Path, two_nodes: Network) -> None:
    """The last one is truncated, and asked for again over TCP."""
    with ExitStack() as stack:
        with inside(two_nodes.server):
            port = stack.enter_context(dnsmasq(tmp_path, two_nodes.server.address))
        agent = stack.enter_context(watch(tmp_path, port))
        for words in (["here.test"], ["nowhere.test", "AAAA"], ["large.test", "TXT", "+noedns"]):
            dig(port, *words, address=two_nodes.service, prefix=two_nodes.client.command())
        spans = agent.stop()
    assert_paired(spans, 4, ordered=False)
    for kind in ("CLIENT", "SERVER"):
        seen = [
            (span["name"], span["attributes"]["network.transport"], span["attributes"]["wirespan.dns.response.code"])
            for span in of_kind(spans, kind)
        ]
        assert seen == [
            ("DNS A", "udp", "NOERROR"),
            ("DNS AAAA", "udp", "NXDOMAIN"),
            ("DNS TXT", "udp", "NOERROR"),
            ("DNS TXT", "tcp", "NOERROR"),
        ]


@pytest.mark.requires_command("dig")
def test_a_server_that_fails_is_an_error_at_both_ends(tmp_path: Path) -> None:
    def fail() -> None:
        query, peer = server.recvfrom(512)
        question = query[12 : query.index(b"\0", 12) + 5]
        server.sendto(query[:2] + bytes.fromhex("8182 0001 0000 0000 0000") + question, peer)

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.settimeout(10)
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        with watch(tmp_path, port) as agent:
            failing = Thread(target=fail)
            failing.start()
            assert "SERVFAIL" in dig(port, "here.test")
            failing.join()
            spans = agent.stop()
    assert_paired(spans, 1, ordered=False)
    for span in spans:
        assert span["attributes"]["wirespan.dns.response.code"] == "SERVFAIL"
        assert (span["status"], span["attributes"]["error.type"]) == ("ERROR", "try_again")


@pytest.mark.parametrize(
    ("excluded", "kinds"),
    [(["datagram_server"], {"CLIENT"}), (["pytest", "python*"], {"SERVER"}), (["nobody"], {"CLIENT", "SERVER"})],
    ids=["server", "client", "none"],
)
def test_datagrams_of_a_process_that_is_excluded_are_counted(
    tmp_path: Path, excluded: list[str], kinds: set[str]
) -> None:
    """The client is the test itself, which is still there when its service is looked up; pytest-xdist starts its processes
    as `python -c`."""
    port = free_port()
    select = {"ports": [port], "exclude": {"services": excluded}}
    with (
        Process("datagram_server", [sys.executable, SERVER, str(port)], tmp_path) as server,
        watch(tmp_path, port, ebpf={"select": select}) as agent,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        server.wait_for_log("ready")
        client.settimeout(5)
        client.connect(("127.0.0.1", port))
        for number in range(EXCHANGES):
            client.send(b"%08d" % number)
            assert client.recv(100) == b"%08d" % number
        spans = agent.stop()
    account = assert_all_accounted(agent)
    assert Counter(span["kind"] for span in spans) == dict.fromkeys(kinds, EXCHANGES)
    assert account["excluded"] == (2 - len(kinds)) * EXCHANGES
    if len(kinds) == 1:
        assert {span["parent_span_id"] for span in spans} == {""}


@pytest.mark.requires_command("dnsmasq", "dig", "unshare")
def test_its_own_lookups_are_not_seen_at_either_end(tmp_path: Path) -> None:
    """A mount namespace has the resolver that knows where the backend is; who else asks it is seen."""
    (tmp_path / "resolv.conf").write_text(f"nameserver {RESOLVER}\n")
    script = f'mount --bind {tmp_path}/resolv.conf /etc/resolv.conf && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", script, "sh", COMMAND]
    with Sink() as sink, dnsmasq(tmp_path, RESOLVER, 53, local="127.0.0.1"):
        exporters = {
            "otlp_grpc": {"endpoint": f"http://here.test:{sink.grpc_port}", "tls": {"insecure": True}},
            "otlp_http": {"endpoint": f"http://here.test:{sink.http_port}", "tls": {"insecure": True}},
        }
        configuration = {
            "receivers": {"ebpf": {"select": {"ports": [53]}, "instrumented": "both", "settle": "200ms"}},
            "exporters": exporters,
            "service": {"pipelines": {"traces": {"receivers": ["ebpf"], "exporters": list(exporters)}}},
        }
        with Agent(configuration, tmp_path, command=command) as agent:
            dig(53, "here.test", "TXT", address=RESOLVER)  # the export of which looks the backend up
            wait_until("an export by each protocol", lambda: sink.request_count >= 2)
            time.sleep(1)
            dig(53, "nowhere.test", address=RESOLVER)
            wait_until("further exports", lambda: sink.request_count >= 4)
            pid = agent.pid
        spans = [span for span in from_messages(sink.spans) if span["attributes"]["server.address"] == RESOLVER]
    assert pid not in {span["attributes"]["process.pid"] for span in spans}
    # Each span has come twice, once by each protocol.
    seen = Counter((span["kind"], span["name"], span["attributes"]["dns.question.name"]) for span in spans)
    assert seen == {
        (kind, *asked): 2
        for kind in ("CLIENT", "SERVER")
        for asked in (("DNS TXT", "here.test"), ("DNS A", "nowhere.test"))
    }
