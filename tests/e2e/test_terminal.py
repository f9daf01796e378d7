"""What somebody sees who types `wirespan run` in a terminal: a real one, real requests, real keys."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import servers
from support.agent import COMMAND, READY
from support.exchanges import PROGRAMS
from support.processes import Process, free_port
from support.servers import Listening
from support.terminal import Terminal
from support.waiting import wait_until

pytestmark = [pytest.mark.requires_bpf, pytest.mark.requires_command("curl")]

DELAY_MS = 20
HINT = "Ctrl-C ends"
UNSET = {name: "" for name in os.environ if name.startswith("OTEL_")}
NUMBER, TIME = r"([\d,.]+[MGT]?|-)", r"(?:([\d.]+)(ns|µs|ms|s)|-)"
UNITS = {"ns": 1e-9, "µs": 1e-6, "ms": 1e-3, "s": 1.0}


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Listening]:
    with servers.python_server(PROGRAMS / "slow_web_server.py", tmp_path, str(DELAY_MS)) as server:
        yield server


def run(
    *ports: int, columns: int = 140, lines: int = 30, arguments: tuple[str, ...] = (), **environment: str
) -> Terminal:
    select = f"receivers.ebpf.select.ports={list(ports)}"
    return Terminal([COMMAND, "run", "--set", select, *arguments], columns, lines, UNSET | environment)


def curl(port: int, *paths: str) -> None:
    """Each path by a process of its own."""
    for path in paths:
        subprocess.run(["curl", "-s", "-o", "/dev/null", f"http://127.0.0.1:{port}{path}"], check=True)


def row(terminal: Terminal, service: str, arrow: str, peer: str) -> re.Match[str] | None:
    """protocol, requests, a second, errors, p50, its unit, p99, its unit, queue, its unit"""
    columns = rf"(\w+) +{NUMBER} +{NUMBER} +{NUMBER} +{TIME} +{TIME} +{TIME}$"
    return re.search(rf"^{re.escape(service)} +{arrow} {re.escape(peer)} +{columns}", terminal.text, re.MULTILINE)


def seconds(found: re.Match[str], group: int) -> float:
    return float(found[group]) * UNITS[found[group + 1]]


@pytest.mark.alone("its times are looked at")
def test_a_terminal_shows_who_calls_whom_how_often_and_how_fast(web: Listening) -> None:
    with run(web.port) as terminal:
        terminal.wait_for(READY)
        curl(web.port, *["/"] * 9, "/missing")
        client, server = ("curl", "→", f"slow_web_server:{web.port}"), (f"slow_web_server:{web.port}", "←", "curl")

        def counted(*ends: str) -> re.Match[str] | None:
            found = row(terminal, *ends)
            return found if found and found[2] == "10" else None

        called = wait_until("ten requests of the client", lambda: counted(*client))
        served = wait_until("ten requests at the server", lambda: counted(*server))
        assert (called[1], served[1]) == ("http", "http")
        # Of a client a status from 400 is an error, of a server from 500.
        assert (called[4], served[4]) == ("1", "-")
        assert 0 < float(called[3]) <= 10
        for found in (called, served):
            assert DELAY_MS / 1e3 * 0.97 <= seconds(found, 5) <= seconds(found, 7) < 1
        assert seconds(served, 9) < 0.1
        assert re.search(
            r"^wirespan  up [\dms]+  [\d.]+ spans/s  20 spans  1 error  0 dropped  100% coverage$",
            terminal.text,
            re.MULTILINE,
        )
        assert re.search(
            rf"^[\d:.]+ curl +→ 127\.0\.0\.1:{web.port} +GET /\w* +(200|404) +2\d\.\dms", terminal.text, re.MULTILINE
        )


@pytest.mark.alone("that another agent is there would be in the log")
def test_ctrl_c_leaves_a_summary_and_the_terminal_as_it_was(web: Listening) -> None:
    with run(web.port) as terminal:
        terminal.wait_for(READY)
        curl(web.port, "/", "/missing", "/")
        terminal.wait_for("slow_web_server")
        terminal.type("\x03")
        assert terminal.wait_for_end() == 0
        assert terminal.current_modes() == terminal.modes
        assert not terminal.cursor_hidden
        assert terminal.cursor == (0, len(terminal.text.splitlines()))
        assert HINT not in terminal.text
        head = next(number for number, line in enumerate(terminal.lines) if line.startswith("SERVICE"))
        assert re.match(r"wirespan  up [\dms]+  6 spans  1 error  0 dropped  100% coverage", terminal.lines[head - 2])
        assert re.match(rf"curl +→ slow_web_server:{web.port} +http +3 +1 ", terminal.lines[head + 1])
        # What the log said before the summary was scrolled up, in order; what it says after comes below.
        log = [line.split()[2] for line in terminal.history if re.match(r"\d{4}-\d\d-\d\dT", line)]
        assert log == ["Starting", "Configuration", "Everything", "Watching", "Shutting"]
        assert re.search(
            r'exchanges +exporter=terminal sum="6 observed = 6 exported" observed=6 recovered=0 exported=6 ',
            terminal.text,
        )


def test_on_60_columns_nothing_that_is_to_be_read_is_cut_off(web: Listening) -> None:
    with run(web.port, columns=60) as terminal:
        terminal.wait_for(READY)
        curl(web.port, "/", "/missing")
        terminal.wait_for("404")
        text = terminal.text
        assert re.search(rf"^curl +→ slow_web_.*…?:{web.port} ", text, re.MULTILINE)
        assert re.search(r"^curl +→ GET /missing +404 +2\d\.\dms$", text, re.MULTILINE)
        assert "\nOTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4317" in text
        below = text.partition("Some of the latest spans")[2]
        assert "…" not in below.replace("slow_web_server…", "")
        terminal.type("\x03")
        terminal.wait_for_end()
        assert re.search(r"^SERVICE +PEER +REQUESTS +ERRORS +P50$", terminal.text, re.MULTILINE)


def test_what_tears_the_table_is_mended(web: Listening) -> None:
    with run(web.port) as terminal:
        terminal.wait_for(READY)
        curl(web.port, "/")
        terminal.wait_for("slow_web_server")
        for columns, lines in ((70, 20), (40, 12), (200, 50)):
            terminal.resize(columns, lines)
            terminal.type("\r\rabc")
            wait_until("a whole frame", lambda: frame_is_whole(terminal))
            assert all(line.startswith("wirespan  up") for line in terminal.lines[:1])
        assert terminal.popen.poll() is None


def frame_is_whole(terminal: Terminal) -> bool:
    """One head, one table, one row of each end, one hint, nothing else that is typed or left over."""
    text = terminal.text
    counts = [
        len(re.findall(part, text, re.MULTILINE))
        for part in ("^wirespan  up", "^SERVICE", HINT, "^curl +→ slow", "abc")
    ]
    return counts == [1, 1, 1, 1, 0] and text.startswith("wirespan  up")


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM])
def test_however_it_ends_nothing_has_to_be_restored(web: Listening, by: signal.Signals) -> None:
    with run(web.port) as terminal:
        terminal.wait_for(HINT)
        terminal.popen.send_signal(by)
        terminal.wait_for_end()
        assert terminal.current_modes() == terminal.modes
        assert not terminal.cursor_hidden
        assert b"\x1b[?" not in terminal.output, "a private mode, such as the alternate screen"


@pytest.mark.requires_command("setpriv")
def test_where_it_may_not_start_it_says_why_and_draws_nothing() -> None:
    with Terminal(
        ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all", COMMAND, "run"], 140, 30, UNSET
    ) as terminal:
        assert terminal.wait_for_end() == 1
        assert "cannot load the BPF programs" in terminal.text
        assert "spans" not in terminal.text
        assert not terminal.history


def test_after_ten_quiet_seconds_it_says_what_to_type_and_that_works() -> None:
    port = free_port()
    with run(port, columns=160) as terminal:
        terminal.wait_for("Nothing seen yet.")
        terminal.wait_for("Nothing seen so far. In another terminal, try:", timeout=15)
        (command,) = re.findall(r'command="(.*)"$', terminal.text, re.MULTILINE)
        shell = subprocess.Popen(["sh", "-c", f"{command} >/dev/null 2>&1"], start_new_session=True)
        try:
            terminal.wait_for(f"→ http.server:{port}")
        finally:
            os.killpg(shell.pid, signal.SIGTERM)
            shell.wait()


def test_a_terminal_that_cannot_be_redrawn_gets_lines(web: Listening) -> None:
    with run(web.port, TERM="dumb") as terminal:
        terminal.wait_for(READY)
        curl(web.port, "/")
        terminal.wait_for(f"→ 127.0.0.1:{web.port}")
        assert HINT not in terminal.text


def test_lines_can_be_asked_for_on_a_terminal(web: Listening) -> None:
    with run(web.port, arguments=("--set", "exporters.debug.verbosity=normal")) as terminal:
        terminal.wait_for(READY)
        curl(web.port, "/")
        terminal.wait_for(f"→ 127.0.0.1:{web.port}")
        assert HINT not in terminal.text


def test_neither_colours_nor_utf_8_are_needed(web: Listening) -> None:
    environment = {"NO_COLOR": "1", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    with run(web.port, **environment) as terminal:
        terminal.wait_for(READY)
        curl(web.port, "/")
        terminal.wait_for(f"> slow_web_server:{web.port}")
        terminal.type("\x03")
        assert terminal.wait_for_end() == 0
        assert terminal.output.isascii()
        assert not re.search(rb"\x1b\[[\d;]*3\dm", terminal.output)


def test_without_a_terminal_spans_are_lines_on_stdout(tmp_path: Path, web: Listening) -> None:
    select = f"receivers.ebpf.select.ports=[{web.port}]"
    with Process("wirespan", [COMMAND, "run", "--set", select], tmp_path, UNSET) as agent:
        agent.wait_for_log(READY)
        curl(web.port, "/")
        agent.wait_for_log(f"→ 127.0.0.1:{web.port}")
        (facts,) = re.findall(r"\tWatching\t(.*)", agent.log)
        assert re.fullmatch(r"processes=\d+ connections=\d+ listening_ports=\d+ exports_to=stdout", facts)
        assert agent.stop() == 0
