"""The component `terminal`: when it starts, what it counts, and what becomes of the log meanwhile."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

import pytest

from support.terminal import Terminal
from wirespan.exporters.terminal.exporter import FACTORY
from wirespan.pipeline.component import Context, StartError
from wirespan.pipeline.counters import Counters

ENVIRONMENT = {"PYTHONPATH": str(Path(__file__).parents[1])}

#: consumes batches until it is told to end, logs, and says at the end what it counted
PROGRAM = """
import logging, sys, time
from support.otlp_batches import batch_of
from wirespan.exporters.terminal.exporter import FACTORY
from wirespan.pipeline.component import Context
from wirespan.pipeline.counters import Counters
logging.basicConfig(format="12:00\\t%(levelname)s\\t%(message)s")
counters = Counters()
exporter = FACTORY.create(FACTORY.config.model_validate({"refresh_interval": "200ms"}), Context("terminal", counters))
exporter.start()
exporter.consume(batch_of(3, name="GE\\x1b[2JT"))
for command in sys.stdin:
    if command == "spans\\n":
        exporter.consume(batch_of(5, resources=2))
    else:
        logging.warning(command.strip())
exporter.shutdown(time.monotonic() + 5)
exporter.shutdown(time.monotonic() + 5)
exporter.consume(batch_of(1))
logging.warning("after")
print(*(f"{name}={amount}" for (name, _), amount in sorted(counters.snapshot().items())), file=sys.stderr)
"""


def test_it_refuses_to_start_where_it_cannot_draw(capsys: pytest.CaptureFixture[str]) -> None:
    exporter = FACTORY.create(FACTORY.config(), Context("terminal", Counters()))
    with pytest.raises(StartError, match="stdout is not a terminal that can be redrawn; use the exporter debug"):
        exporter.start()
    exporter.shutdown(time.monotonic())


def test_it_counts_what_it_showed_and_what_it_could_not() -> None:
    with Terminal([sys.executable, "-c", PROGRAM], environment=ENVIRONMENT) as terminal:
        terminal.wait_for("Some of the latest spans")
        assert "GE\N{REPLACEMENT CHARACTER}[2JT" in terminal.text
        terminal.type("\x04")
        assert terminal.wait_for_end() == 0
        assert "otelcol_exporter_send_failed_spans=1 otelcol_exporter_sent_spans=3" in terminal.text


def test_the_log_is_a_part_of_the_frame_for_a_while_and_then_as_it_was() -> None:
    with Terminal([sys.executable, "-c", PROGRAM], environment=ENVIRONMENT) as terminal:
        terminal.wait_for("Some of the latest spans")
        terminal.type("Sending queue is full.\n")
        terminal.wait_for("Ctrl-C")
        terminal.wait_for("\nSending queue is full.\n")
        assert "12:00   WARNING Sending queue is full." in terminal.history
        terminal.type("spans\n")
        terminal.wait_for("service-1")
        terminal.type("\x04")
        assert terminal.wait_for_end() == 0
        assert "12:00   WARNING after" in terminal.text
        assert "Ctrl-C" not in terminal.text


def test_a_log_that_goes_elsewhere_is_left_alone(tmp_path: Path) -> None:
    shell = f'exec "$0" -c "$1" 2>{tmp_path / "log"}'
    with Terminal(["sh", "-c", shell, sys.executable, PROGRAM], environment=ENVIRONMENT) as terminal:
        terminal.wait_for("Some of the latest spans")
        terminal.type("Sending queue is full.\n\x04")
        assert terminal.wait_for_end() == 0
        assert terminal.output.count(b"Sending queue is full.") == 1  # as it was typed
    log = (tmp_path / "log").read_text().splitlines()
    assert log[:2] == ["12:00\tWARNING\tSending queue is full.", "12:00\tWARNING\tafter"]


def test_a_terminal_that_goes_away_is_said_once_and_spans_are_counted_as_failed(tmp_path: Path) -> None:
    master, slave = pty.openpty()
    reader = Thread(target=lambda: [None for _ in iter(lambda: _read(master), b"")], daemon=True)
    reader.start()
    started = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdin=subprocess.PIPE,
        stdout=slave,
        stderr=subprocess.PIPE,
        env={**os.environ, "TERM": "xterm", **ENVIRONMENT},
        text=True,
    )
    assert started.stdin is not None
    assert started.stderr is not None
    os.close(slave)
    time.sleep(1)
    os.close(master)
    line = started.stderr.readline()
    assert line == "12:00\tWARNING\tCannot write to the terminal any more. Dropping spans.\n"
    started.stdin.write("spans\n")
    started.stdin.close()
    rest = started.stderr.read()
    assert "otelcol_exporter_send_failed_spans=6 otelcol_exporter_sent_spans=3" in rest
    assert not re.search("Traceback|Exception", rest)
    assert started.wait(10) == 0


def _read(master: int) -> bytes:
    try:
        return os.read(master, 65536)
    except OSError:
        return b""


def test_a_run_that_does_not_draw_does_not_import_the_library(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from wirespan.service.config import load
from wirespan.service import lifecycle
for name in ("default", "otlp", "otlp_http", "file", "collector"):
    load(Path(sys.argv[1]) / f"{name}.yaml", {})
print("rich" in sys.modules)
load(Path(sys.argv[1]) / "terminal.yaml", {})
print("rich" in sys.modules)
"""
    folder = Path(__file__).parents[2] / "config"
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
