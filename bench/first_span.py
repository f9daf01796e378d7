"""From the start of the agent to the first span, of a connection that closes.

A client makes short connections all along, one after the other. The clock runs from before the process of
``wirespan run`` is created until the file exporter's file has a line: a span of a connection that was made, used and
closed after everything was attached, for only that client's port is watched.
"""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from bench.figures import Figure, Plan, Target
from support import servers
from support.agent import COMMAND
from support.processes import Process
from support.waiting import wait_until

_PAUSE = 0.01


def measure(plan: Plan) -> list[Figure]:
    seconds = []
    with servers.nginx(plan.folder) as nginx, short_connections(nginx.port):
        for number in range(plan.rounds):
            seconds.append(first_span(plan.folder, nginx.port))
            plan.say(f"{number + 1}/{plan.rounds}  {seconds[-1]:.2f} s")
    return [Figure("start to first span", Target.AT_MOST, 1.5, "s", seconds)]


def first_span(folder: Path, port: int) -> float:
    """Seconds until there is one."""
    spans = folder / "spans.jsonl"
    spans.unlink(missing_ok=True)
    configuration = folder / "wirespan.yaml"
    configuration.write_text(
        yaml.safe_dump(
            {
                "receivers": {"ebpf": {"select": {"ports": [port]}}},
                "exporters": {"file": {"path": str(spans)}},
                "service": {"pipelines": {"traces": {"receivers": ["ebpf"], "exporters": ["file"]}}},
            }
        )
    )
    begin = time.monotonic()
    with Process("wirespan", [COMMAND, "run", "--config", configuration], folder):
        wait_until("a span", lambda: spans.exists() and b"\n" in spans.read_bytes())
        return time.monotonic() - begin


@contextmanager
def short_connections(port: int) -> Iterator[None]:
    """A client that connects, asks, reads and closes, about 100 times a second."""
    stop = threading.Event()

    def ask() -> None:
        while not stop.wait(_PAUSE):
            connection = http.client.HTTPConnection("127.0.0.1", port)
            connection.request("GET", "/", headers={"Connection": "close"})
            connection.getresponse().read()
            connection.close()

    client = threading.Thread(target=ask, name="short connections", daemon=True)
    client.start()
    try:
        yield
    finally:
        stop.set()
        client.join()
