"""DNS with a real server and real resolvers: what was asked, how it ended, and that both ends pair."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.dns import LONG, dig, dnsmasq
from support.exchanges import PROGRAMS, assert_all_exported, assert_paired, of_kind, watch
from support.processes import Process, free_port
from support.spans import Span

pytestmark = [pytest.mark.requires_bpf, pytest.mark.requires_command("dnsmasq", "dig")]

RESOLVE = "import socket; print(sorted({a[4][0] for a in socket.getaddrinfo('here.test', 80)}))"


def told(span: Span) -> dict[str, Any]:
    """What a span says about DNS, and how it ended."""
    attributes = span["attributes"]
    found = {name.removeprefix("wirespan."): value for name, value in attributes.items() if "dns." in name}
    return found | {"name": span["name"], "status": span["status"], "error": attributes.get("error.type")}


@pytest.mark.parametrize(
    ("words", "name", "code", "error"),
    [
        (["here.test"], "DNS A", "NOERROR", None),
        (["here.test", "AAAA"], "DNS AAAA", "NOERROR", None),
        (["nowhere.test", "MX"], "DNS MX", "NXDOMAIN", "host_not_found"),
        (["example.org"], "DNS A", "REFUSED", "no_recovery"),
        (["-x", "10.1.2.3"], "DNS PTR", "NOERROR", None),
    ],
    ids=lambda value: str(value)[:20],
)
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_lookup_is_a_span_at_both_ends(
    tmp_path: Path, transport: str, words: list[str], name: str, code: str, error: str | None
) -> None:
    with dnsmasq(tmp_path) as port, watch(tmp_path, port) as agent:
        dig(port, *words, *(["+tcp"] if transport == "tcp" else []))
        spans = agent.stop()
    assert_paired(spans, 1, ordered=False)
    assert_all_exported(agent, 2)
    (client,), (server,) = of_kind(spans, "CLIENT"), of_kind(spans, "SERVER")
    question = "3.2.1.10.in-addr.arpa" if words[0] == "-x" else words[0]
    expected = {
        "name": name,
        "dns.question.name": question,
        "dns.question.type": name.split()[1],
        "dns.response.code": code,
    }
    assert told(client) == expected | {"error": error, "status": "ERROR" if error else "UNSET"}
    assert told(server) == expected | {"error": None, "status": "UNSET"}
    assert {span["attributes"]["network.transport"] for span in spans} == {transport}
    assert {span["attributes"]["network.protocol.name"] for span in spans} == {"dns"}


def test_a_name_that_is_longer_than_what_is_noted_down_of_a_packet_is_whole_at_both_ends(tmp_path: Path) -> None:
    with dnsmasq(tmp_path) as port, watch(tmp_path, port) as agent:
        dig(port, LONG)
        spans = agent.stop()
    assert_paired(spans, 1, ordered=False)
    assert {span["attributes"]["dns.question.name"] for span in spans} == {LONG}


def test_a_truncated_answer_is_marked_and_asked_for_again_over_tcp(tmp_path: Path) -> None:
    with dnsmasq(tmp_path) as port, watch(tmp_path, port) as agent:
        dig(port, "large.test", "TXT", "+noedns")
        spans = agent.stop()
    assert_paired(spans, 2, ordered=False)
    for kind in ("CLIENT", "SERVER"):
        seen = [span["attributes"] for span in of_kind(spans, kind)]
        assert [of["network.transport"] for of in seen] == ["udp", "tcp"]
        assert [of.get("wirespan.dns.truncated", False) for of in seen] == [True, False]


def test_both_lookups_of_getaddrinfo_in_one_call_are_exchanges_of_their_own(tmp_path: Path) -> None:
    address = "127.0.0.153"  # glibc asks port 53 only
    (tmp_path / "resolv.conf").write_text(f"nameserver {address}\n")
    script = f'mount --bind {tmp_path}/resolv.conf /etc/resolv.conf && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable, "-c", RESOLVE]
    with dnsmasq(tmp_path, address, 53), watch(tmp_path, 53) as agent:
        said = subprocess.run(command, capture_output=True, text=True, timeout=30)
        assert said.stdout == "['10.1.2.3', 'fd00::1']\n", said.stderr
        spans = [span for span in agent.stop() if span["attributes"]["server.address"] == address]
    assert_paired(spans, 2, ordered=False)
    assert sorted(span["name"] for span in spans) == ["DNS A"] * 2 + ["DNS AAAA"] * 2
    assert len({span["attributes"]["client.port"] for span in spans}) == 1


def test_each_try_of_a_resolver_whose_server_is_dead_times_out(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, PROGRAMS / "datagram_server.py", str(port), "--silent"]
    with (
        Process("silent", command, tmp_path) as silent,
        watch(tmp_path, port, ebpf={"udp_timeout": "1s", "settle": "200ms"}) as agent,
    ):
        silent.wait_for_log("ready")
        dig(port, "here.test", "+tries=3")
        spans = agent.wait_for_spans(3)
    assert [told(span)["error"] for span in spans] == ["timeout"] * 3
    assert {(span["kind"], span["name"]) for span in spans} == {("CLIENT", "DNS A")}
    assert {span["attributes"]["dns.question.name"] for span in spans} == {"here.test"}


def test_a_closed_port_refuses_a_lookup(tmp_path: Path) -> None:
    port = free_port()
    query = bytes.fromhex("123401000001000000000000046865726504746573740000010001")
    with watch(tmp_path, port) as agent, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(2)
        client.connect(("127.0.0.1", port))
        client.send(query)
        with pytest.raises(ConnectionRefusedError):
            client.recv(512)
        (span,) = agent.stop()
    assert told(span)["error"] == "connection_refused"
    assert span["name"] == "DNS A"
