"""PostgreSQL, MariaDB and memcached as they are: metrics count what the servers' own logs and the load generators count."""

from __future__ import annotations

import re
import socket
from collections import Counter
from pathlib import Path
from struct import pack
from typing import Any

import pytest

from support import databases
from support.counting import counting, counts
from support.exchanges import assert_all_accounted
from support.waiting import wait_until

pytestmark = pytest.mark.requires_bpf

TRANSACTIONS, CLIENTS = 2_000, 4
KINDS = ("SPAN_KIND_SERVER", "SPAN_KIND_CLIENT")


def by_status(folder: Path, kind: str) -> Counter[str | None]:
    """Of one end the exchanges by status class; all are of one protocol."""
    found = counts(folder, "span.kind", "wirespan.response.status_class")
    return Counter({status: count for (of, status), count in found.items() if of == kind})


def protocols(folder: Path) -> set[Any]:
    return {name for (name,) in counts(folder, "network.protocol.name")}


def asked(log: str) -> int:
    """Exchanges that PostgreSQL had by its log: of a connection the request for TLS, which it refuses, and the start; and the
    statements."""
    return 2 * log.count("connection authorized") + len(re.findall(r"LOG:  (statement|execute)", log))


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with databases.postgresql(tmp_path_factory.mktemp("postgresql")) as server:
        server.run("pgbench", "-i", "-q", "-n")
        yield server


@pytest.mark.parametrize("share", [1.0, 0.01, 0.0])
@pytest.mark.parametrize("mode", ["simple", "extended", "prepared"])
def test_pgbench(tmp_path: Path, bank: databases.Database, share: float, mode: str) -> None:
    before = bank.process.log
    with counting(tmp_path, bank.port, spans={"probability": share}) as agent:
        words = ("-n", "-S", "-t", TRANSACTIONS, "-c", CLIENTS, "-M", mode)
        said = bank.run("pgbench", *words)
        assert agent.process.stop() == 0, agent.log
    done = TRANSACTIONS * CLIENTS
    assert f"actually processed: {done}/{done}" in said
    log = bank.process.log.removeprefix(before)
    connections = log.count("connection authorized")
    assert connections == CLIENTS + 1  # one asks for the tables first
    prepares = CLIENTS if mode == "prepared" else 0  # a Parse of its own before the first execution
    expected = asked(log) + prepares
    assert protocols(tmp_path) == {"postgresql"}
    for kind in KINDS:
        found = by_status(tmp_path, kind)
        assert found.total() == expected
        assert done + connections <= found["success"] <= expected - connections
        assert not found["error"] + found["client_error"] + found["server_error"]
    account = assert_all_accounted(agent)
    assert account["observed"] == 2 * expected
    if share == 1.0:
        assert account["exported"] == account["observed"]


def test_statements_that_fail_are_counted_by_whose_fault_it_is(tmp_path: Path, bank: databases.Database) -> None:
    statements = {
        "SELECT 1/0": ("client_error", "22012"),
        "SELEC": ("client_error", "42601"),
        "INSERT INTO pgbench_branches VALUES (1, 0)": ("client_error", "23505"),
        "SELECT pg_sleep(2)": ("server_error", "57014"),
        "DO $$ BEGIN RAISE EXCEPTION 'x'; END $$": ("error", "P0001"),
    }
    with counting(tmp_path, bank.port) as agent:
        for statement in statements:
            bank.run("psql", "-X", "-c", "SET statement_timeout = 20", "-c", statement, check=False)
        spans = agent.stop()
    for kind in KINDS:
        found = by_status(tmp_path, kind)
        for status in ("client_error", "server_error", "error"):
            assert found[status] == sum(of == status for of, _ in statements.values())
    failed = [span for span in spans if span["status"] == "ERROR"]
    assert Counter(span["attributes"]["error.type"] for span in failed) == {code: 2 for _, code in statements.values()}
    assert all(span["attributes"]["db.response.status_code"] == span["attributes"]["error.type"] for span in failed)
    assert {span["name"] for span in spans} == {"postgresql"}
    assert {span["attributes"]["db.system.name"] for span in spans} == {"postgresql"}
    assert "pg_sleep" not in (tmp_path / "spans.jsonl").read_text()


def test_a_closed_connection_is_no_failure(tmp_path: Path, bank: databases.Database) -> None:
    with counting(tmp_path, bank.port) as agent:
        bank.run("psql", "-X", "-c", "SELECT 1")
        spans = agent.stop()
    assert not [span for span in spans if span["status"] == "ERROR"]
    assert not [error for (error,) in counts(tmp_path, "error.type") if error]
    assert len(spans) == 2 * 3  # TLS refused, start, SELECT


def test_mariadb(tmp_path: Path) -> None:
    with databases.mariadb(tmp_path) as server:
        login = ("--no-defaults", "--protocol=tcp", "-h127.0.0.1", f"-P{server.port}", "-uroot", "--skip-ssl")
        server.run("mariadb", *login, "-e", "CREATE DATABASE mysqlslap")
        before = (tmp_path / "general.log").read_text()
        with counting(tmp_path, server.port) as agent:
            server.run("mariadb-slap", *login, "--concurrency=4", "--number-of-queries=2000", "--query=SELECT 1")
            server.run("mariadb", *login, "-e", "SELECT * FROM mysql.nothing_of_this_name", check=False)
            server.run("mariadb", *login, "-e", "CREATE DATABASE mine; USE mine; CREATE TABLE t (a INT PRIMARY KEY)")
            server.run("mariadb", *login, "mine", "-e", "INSERT INTO t VALUES (1), (1)", check=False)
            spans = agent.stop()
        log = (tmp_path / "general.log").read_text().removeprefix(before)
    # Of a connection the login; statements, and what selects a database.
    expected = sum(len(re.findall(rf"\d (?:{what})\t", log)) for what in ("Connect", "Query", "Init DB"))
    assert expected > 2_000
    assert protocols(tmp_path) == {"mysql"}
    for kind in KINDS:
        found = by_status(tmp_path, kind)
        assert found.total() == expected
        assert found["client_error"] == 2
    failed = [span for span in spans if span["status"] == "ERROR"]
    assert Counter(span["attributes"]["error.type"] for span in failed) == {"1146": 2, "1062": 2}
    assert {span["name"] for span in spans} == {"mysql"}


def test_memcached(tmp_path: Path) -> None:
    def ask(client: socket.socket, request: bytes, end: bytes = b"\r\n") -> bytes:
        client.sendall(request)
        answer = b""
        while not answer.endswith(end):
            answer += client.recv(1_000)
        return answer

    with databases.memcached(tmp_path) as server, counting(tmp_path, server.port) as agent:
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
            for number in range(500):
                assert ask(client, b"set key%d 0 0 5\r\nvalue\r\n" % number) == b"STORED\r\n"
                assert ask(client, b"get key%d\r\n" % number, b"END\r\n").startswith(b"VALUE ")
            assert ask(client, b"get nothing\r\n") == b"END\r\n"
            assert ask(client, b"incr key0 1\r\n").startswith(b"CLIENT_ERROR ")
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
            client.sendall(b"quit\r\n")
            assert client.recv(10) == b""
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
            client.sendall(pack(">BBHBBHIIQ", 0x80, 0, 4, 0, 0, 0, 4, 77, 0) + b"key0")
            wait_until("an answer", lambda: len(client.recv(1_000, socket.MSG_PEEK)) >= 24 + 4 + 5)
            client.recv(1_000)
        spans = agent.stop()
    assert protocols(tmp_path) == {"memcached"}
    for kind in KINDS:
        assert by_status(tmp_path, kind) == {"success": 1_002, "client_error": 1}
    failed = [span for span in spans if span["status"] == "ERROR"]
    assert Counter(span["attributes"]["error.type"] for span in failed) == {"CLIENT_ERROR": 2}
