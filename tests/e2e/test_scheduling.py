"""Which of the agent's threads give way to what it watches: the one that drains, and no other."""

from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path

from sink import Sink
from support.agent import Agent
from support.waiting import wait_until


def policies(pid: int) -> dict[int, int]:
    """The policy of each thread."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            found[int(task.name)] = os.sched_getscheduler(int(task.name))
        except ProcessLookupError:
            continue
    return found


def answer(listener: socket.socket) -> None:
    peer, _ = listener.accept()
    with peer:
        while data := peer.recv(100):
            peer.sendall(data)


def test_only_the_thread_that_drains_gives_way(tmp_path: Path) -> None:
    seen: dict[int, set[int]] = {}
    giving_way: set[int] = set()
    with Sink() as sink, socket.create_server(("127.0.0.1", 0)) as listener:
        exporters = {
            "otlp_grpc": {"endpoint": f"http://127.0.0.1:{sink.grpc_port}"},
            "otlp_http": {"endpoint": f"http://127.0.0.1:{sink.http_port}"},
        }
        pipeline = {"receivers": ["ebpf"], "exporters": list(exporters)}
        receivers = {"ebpf": {"select": {"ports": [listener.getsockname()[1]]}, "drain_interval": "20ms"}}
        service = {"pipelines": {"traces": pipeline}}
        with Agent({"receivers": receivers, "exporters": exporters, "service": service}, tmp_path) as agent:
            threading.Thread(target=answer, args=(listener,), daemon=True).start()
            with socket.create_connection(listener.getsockname()) as client:
                begin = time.monotonic()
                while (elapsed := time.monotonic() - begin) < 3:
                    client.sendall(b"x")
                    client.recv(100)
                    for thread, policy in policies(agent.pid).items() if elapsed > 1 else ():  # all have begun
                        # A thread that has just begun has the policy of the one that began it.
                        if policy == os.SCHED_IDLE and os.SCHED_BATCH in seen.get(thread, ()):
                            giving_way.add(thread)
                        seen.setdefault(thread, set()).add(policy)
            wait_until("spans at both backends", lambda: sink.request_count > 1)
    assert len(giving_way) == 1, seen  # and not while it waits for the next drain
    assert not [thread for thread, policies_seen in seen.items() if policies_seen == {os.SCHED_IDLE}]
    batch = [thread for thread, policies_seen in seen.items() if os.SCHED_BATCH in policies_seen]
    assert len(batch) >= 3, "and a consumer for each exporter"


def test_no_thread_is_there_for_each_processor_unless_that_is_asked_for(tmp_path: Path) -> None:
    threads = {}
    processors = os.cpu_count() or 1
    for asked in (None, processors):
        configuration = {
            "receivers": {"ebpf": {"select": {"ports": [1]}}},
            "exporters": {"file": {}},
            "service": {"pipelines": {"traces": {"receivers": ["ebpf"], "exporters": ["file"]}}},
        }
        folder = tmp_path / str(asked)
        folder.mkdir()
        environment = {} if asked is None else {"OPENBLAS_NUM_THREADS": str(asked)}
        with Agent(configuration, folder, environment=environment) as agent:
            threads[asked] = len(policies(agent.pid))
    assert threads[processors] - threads[None] == processors - 1
