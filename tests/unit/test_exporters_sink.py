"""The tests' own backend as a process: what benchmarks read from it must be right."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import sink
from support.exporting import Start
from support.otlp_batches import batch_of
from support.waiting import wait_until
from wirespan.pipeline.otlp import encode_requests


def free_port() -> int:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        return int(reserved.getsockname()[1])


def test_a_sink_process_counts_what_both_transports_deliver(tmp_path: Path, start: Start) -> None:
    ports = {"otlp_grpc": free_port(), "otlp_http": free_port()}
    command = [sys.executable, sink.__file__, "--grpc", str(ports["otlp_grpc"]), "--http", str(ports["otlp_http"])]
    process = subprocess.Popen(
        [*command, "--count-only", "--out", str(tmp_path / "counts.json")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    for protocol, port in ports.items():
        running = start(protocol, endpoint=f"http://127.0.0.1:{port}")
        running.consume(500)
        wait_until("spans sent", lambda running=running: running.sent(500))
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == 0
    process.stdout.close()
    counts = json.loads((tmp_path / "counts.json").read_text())
    size = sum(len(request.payload) for request in encode_requests(batch_of(500)))
    assert counts == {"requests": 2, "spans": 1000, "bytes": 2 * size}
