"""A connection whose ends a test holds both, and an agent that watches it."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from support.agent import Agent
from support.exchanges import assert_all_exported, assert_paired, of_kind, watch
from support.spans import Span

#: struct timeval: a receive that would wait for longer fails
_PATIENCE = struct.pack("ll", 5, 0)


@contextmanager
def connected(folder: Path) -> Iterator[tuple[Agent, socket.socket, socket.socket]]:
    """An agent, and the client's and the server's end of a connection that it watches."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        watch(folder, listening.getsockname()[1]) as agent,
        socket.create_connection(listening.getsockname()) as client,
        listening.accept()[0] as server,
    ):
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _PATIENCE)
        yield agent, client, server


def assert_exchanged(agent: Agent, sizes: Sequence[tuple[int, int]]) -> list[Span]:
    """The agent stops, having seen exactly exchanges of these sizes, from both ends and all answered."""
    agent.wait_for_spans(2 * len(sizes))
    spans = agent.stop()
    assert_all_exported(agent, 2 * len(sizes))
    assert_paired(spans, len(sizes))
    assert {span["status"] for span in spans} == {"UNSET"}
    for kind in ("CLIENT", "SERVER"):
        attributes = [span["attributes"] for span in of_kind(spans, kind)]
        assert [(one["wirespan.request.size"], one["wirespan.response.size"]) for one in attributes] == list(sizes)
    return spans
