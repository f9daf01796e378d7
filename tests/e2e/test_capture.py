"""What ``capture`` asks for is emitted, of a real server and clients; by default, and of credentials, nothing is."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from support import servers
from support.exchanges import of_kind, watch
from support.spans import Span

pytestmark = pytest.mark.requires_bpf

SECRET = "s3cr3t"
HEADERS = {"X-Request-Id": "r-17", "Cookie": f"session={SECRET}", "Authorization": f"Bearer {SECRET}"}
EVERYTHING = {
    "query_strings": True,
    "request_headers": ["X-Request-ID", "host"],
    "response_headers": ["server"],
    "db_query_text": "literals",
}


def http_exchange(folder: Path, ebpf: Mapping[str, Any]) -> tuple[list[Span], str]:
    """The spans of one request, and all that was written of them."""
    with servers.nginx(folder) as server, watch(folder, server.port, ebpf=ebpf) as agent:
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        connection.request("GET", f"/index.html?item=17&access_token={SECRET}", headers=HEADERS)
        assert connection.getresponse().read()
        connection.close()
        spans = agent.wait_for_spans(2)
    return spans, (folder / "spans.jsonl").read_text() + agent.log


def redis_exchanges(folder: Path, ebpf: Mapping[str, Any]) -> tuple[list[Span], str]:
    with servers.redis(folder) as redis, watch(folder, redis.port, ebpf=ebpf) as agent:
        with socket.create_connection(("127.0.0.1", redis.port)) as connection:
            for command in (b"SET user:42 content", b"AUTH me " + SECRET.encode()):
                words = command.split()
                array = b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
                connection.sendall(b"*%d\r\n" % len(words) + array)
                assert connection.recv(4096)
        spans = agent.wait_for_spans(4)
    return spans, (folder / "spans.jsonl").read_text() + agent.log


@pytest.mark.requires_command("nginx")
def test_query_and_headers_at_both_ends(tmp_path: Path) -> None:
    spans, written = http_exchange(tmp_path, {"capture": EVERYTHING})
    (server,), (client,) = of_kind(spans, "SERVER"), of_kind(spans, "CLIENT")
    port = server["attributes"]["server.port"]
    query = "item=17&access_token=REDACTED"
    assert server["attributes"]["url.query"] == query
    assert client["attributes"]["url.full"] == f"http://127.0.0.1:{port}/index.html?{query}"
    for span in spans:
        assert span["name"] == "GET"
        assert span["attributes"]["http.response.status_code"] == 200
        assert span["attributes"]["http.request.header.x-request-id"] == ("r-17",)
        assert span["attributes"]["http.request.header.host"] == (f"127.0.0.1:{port}",)
        assert span["attributes"]["http.response.header.server"][0].startswith("nginx")
    assert SECRET not in written


@pytest.mark.requires_command("redis-server")
def test_commands_with_literals_but_without_credentials(tmp_path: Path) -> None:
    spans, written = redis_exchanges(tmp_path, {"capture": EVERYTHING})
    for kind in ("SERVER", "CLIENT"):
        texts = [span["attributes"]["db.query.text"] for span in of_kind(spans, kind)]
        assert texts == ["SET user:42 content", "AUTH ? ?"]
    assert SECRET not in written


@pytest.mark.requires_command("redis-server")
def test_pipelined_commands_have_their_texts(tmp_path: Path) -> None:
    numbers = range(300)
    pipeline = b"".join(b"*2\r\n$3\r\nGET\r\n$7\r\nkey:%03d\r\n" % number for number in numbers)
    with (
        servers.redis(tmp_path) as redis,
        watch(tmp_path, redis.port, ebpf={"capture": {"db_query_text": "keys"}}) as agent,
    ):
        with socket.create_connection(("127.0.0.1", redis.port)) as connection:
            connection.sendall(pipeline)
            replies = connection.makefile("rb")
            assert [replies.readline() for _ in numbers] == [b"$-1\r\n"] * len(numbers)
        spans = agent.wait_for_spans(2 * len(numbers))
    for kind in ("SERVER", "CLIENT"):
        found = sorted(span["attributes"]["db.query.text"] for span in of_kind(spans, kind))
        assert found == [f"GET key:{number:03}" for number in numbers]


@pytest.mark.requires_command("nginx", "redis-server")
def test_nothing_of_it_by_default(tmp_path: Path) -> None:
    for name, exchange in (("http", http_exchange), ("redis", redis_exchanges)):
        folder = tmp_path / name
        folder.mkdir()
        spans, written = exchange(folder, {})
        assert spans
        for text in (SECRET, "r-17", "item=17", "user:42", "content", "nginx/"):
            assert text not in written.replace(str(folder), "")
