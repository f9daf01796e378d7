"""A load that moves from port to port, faster than the shares of the ports follow: the budget of all of them holds."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest

from support.exchanges import assert_all_accounted, watch
from support.processes import free_port

pytestmark = [pytest.mark.requires_bpf, pytest.mark.alone("the shares lag where the agent has to wait for a processor")]

BUDGET, PORTS, SECONDS, STAY = 100, 40, 24.0, 0.1


@contextmanager
def echoing(port: int) -> Iterator[socket.socket]:
    """A connection to a server in this process that gives back what it gets."""

    def serve() -> None:
        while received := accepted.recv(10):
            accepted.sendall(received)

    with (
        socket.create_server(("127.0.0.1", port)) as listener,
        socket.create_connection(listener.getsockname()) as client,
    ):
        accepted, _ = listener.accept()
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield client
        finally:
            client.shutdown(socket.SHUT_WR)
            thread.join()
            accepted.close()


def most_in(times: np.ndarray, seconds: float) -> int:
    """Of sorted times in ns, how many are in the fullest window of so many seconds."""
    ends = np.searchsorted(times, times + round(seconds * 1e9))
    return int((ends - np.arange(len(times))).max())


def test_a_load_that_moves_between_ports_is_within_the_budget(tmp_path: Path) -> None:
    ports = [free_port() for _ in range(PORTS)]
    with ExitStack() as stack:
        clients = [stack.enter_context(echoing(port)) for port in ports]
        with watch(tmp_path, *ports, ebpf={"spans": {"max_per_second": BUDGET}}) as agent:
            began, asked = time.monotonic(), 0
            while (passed := time.monotonic() - began) < SECONDS:
                client = clients[int(passed / STAY) % PORTS]
                client.sendall(b"ping")
                client.recv(10)
                asked += 1
            spans = agent.stop()
    account = assert_all_accounted(agent)
    ends = np.sort(np.array([span["end"] for span in spans]))
    figures = {seconds: most_in(ends, seconds) / seconds for seconds in (1.0, 10.0)}
    print(asked, len(spans) / SECONDS, figures, account["sum"])
    assert account["observed"] == 2 * asked > 40 * BUDGET * SECONDS
    # Two seconds of the budget at once, and then as much as that beside what ports are due.
    assert figures[1.0] <= 3.1 * BUDGET
    assert figures[10.0] <= 1.3 * BUDGET
    assert len(spans) >= 0.6 * BUDGET * SECONDS  # where the shares are always too late, not all of it is used
