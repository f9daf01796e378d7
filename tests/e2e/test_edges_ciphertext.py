"""A connection that began as pipelined Redis and goes on as ciphertext, as much as an hour of it: its parser finds no boundary
in it, keeps none of it, and says how much it passed over."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from random import Random
from threading import Thread

import pytest

from support.exchanges import assert_all_accounted, watch
from support.own_metrics import own_metrics
from support.waiting import wait_until

pytestmark = pytest.mark.requires_bpf

PING, PONG = b"*1\r\n$4\r\nPING\r\n", b"+PONG\r\n"
PIPELINED = 16
REQUEST, ANSWER = 65_536, 1_024
ROUNDS = 16_384  # 1 GiB: an hour of 300 KB/s
#: MB
MOST_GROWTH = 10


def anonymous_memory(pid: int) -> float:
    """MB, without the rings."""
    found = re.search(r"^RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) / 1024


def blocks(size: int) -> list[bytes]:
    return [Random(seed).randbytes(size) for seed in range(16)]


def answer(connection: socket.socket) -> None:
    assert len(connection.recv(PIPELINED * len(PING), socket.MSG_WAITALL)) == PIPELINED * len(PING)
    connection.sendall(PIPELINED * PONG)
    answers = blocks(ANSWER)
    for number in range(ROUNDS):
        assert len(connection.recv(REQUEST, socket.MSG_WAITALL)) == REQUEST
        connection.sendall(answers[number % len(answers)])


def test_an_hour_of_ciphertext_for_a_parser(tmp_path: Path) -> None:
    requests = blocks(REQUEST)
    with socket.create_server(("127.0.0.1", 0)) as listening, own_metrics() as metrics:
        port = listening.getsockname()[1]
        with watch(tmp_path, port, metrics=metrics) as agent:
            with socket.create_connection(("127.0.0.1", port)) as client, listening.accept()[0] as server:
                answering = Thread(target=answer, args=(server,))
                answering.start()
                client.sendall(PIPELINED * PING)
                client.recv(PIPELINED * len(PONG), socket.MSG_WAITALL)
                for number in range(ROUNDS):
                    client.sendall(requests[number % len(requests)])
                    assert len(client.recv(ANSWER, socket.MSG_WAITALL)) == ANSWER
                    if number == ROUNDS // 8:
                        before = anonymous_memory(agent.pid)
                answering.join()
                after = anonymous_memory(agent.pid)
            wait_until("the commands before it", lambda: len(agent.spans()) >= 2 * PIPELINED)
            spans = agent.stop()
            assert_all_accounted(agent)
    assert after - before < MOST_GROWTH, f"from {before:.1f} to {after:.1f} MB"
    assert {span["name"] for span in spans} == {"PING"}
    assert len(spans) == 2 * PIPELINED
    skipped = sum(
        metrics.value("wirespan.segments.skipped_bytes", reason=reason) for reason in ("no_boundary", "not_captured")
    )
    assert skipped >= 2 * ROUNDS * REQUEST * 0.9
