"""What somebody does who has just found wirespan: clone it into an empty folder, and type what the README says.

The clone gets a virtual environment of its own; pip takes what it can from its cache. The second command is typed as
written too, but it cannot run all tests inside of one of them. So pytest is told, by the variable that it reads its
options from, to leave out those from end to end: this is one of them, and the run around it makes the others.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path
from threading import Thread

import pytest

from support.availability import unavailable
from support.processes import Process
from support.terminal import Terminal
from support.waiting import wait_until

ROOT = Path(__file__).parents[2]
READY = "Everything is ready. Begin running and processing data."
#: seconds for setting up: pip downloads what its cache does not have, clang compiles
SETUP_TIMEOUT = 110.0
TESTS_TIMEOUT = 300.0
SHUTDOWN_TIMEOUT = 10.0
#: Some of each kind: what setting up has made and the kernel runs, what is measured, and what needs neither. The others do not
#: depend on where the tree is, and run outside of the clone.
NOT_FROM_END_TO_END = {
    "PYTEST_ADDOPTS": "--ignore=tests/e2e -k 'test_ring or test_btf or test_documentation'",
}

pytestmark = [
    pytest.mark.requires_bpf,
    pytest.mark.requires_command("git"),
    pytest.mark.alone("watches the whole machine, and runs tests itself, for which it needs all processors"),
]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is committed, in a new folder."""
    if not (ROOT / ".git").exists():
        unavailable("the tree is no git repository, so it cannot be cloned", obtainable=False)
    folder = tmp_path_factory.mktemp("newcomer") / "wirespan"
    subprocess.run(["git", "clone", "--quiet", ROOT, folder], check=True, capture_output=True, text=True)
    return folder


@pytest.fixture
def web_server() -> Iterator[int]:
    """The port of an HTTP server of this process."""
    with HTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server.server_port
        server.shutdown()


def commands(clone: Path) -> list[str]:
    """The first commands that the README shows."""
    block = re.search(r"^```sh\n(.*?)^```$", (clone / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert block
    return block[1].splitlines()


def start(command: str, clone: Path, folder: Path, environment: Mapping[str, str] | None = None) -> Process:
    """A shell in the clone that runs the command, without what an outer make or agent was told."""
    unset = [word for name in os.environ if name.startswith(("MAKE", "MFLAGS", "OTEL_")) for word in ("-u", name)]
    return Process("make", ["env", "-C", clone, *unset, "sh", "-c", command], folder, environment)


def test_the_first_command_shows_a_span_of_a_request(clone: Path, web_server: int, tmp_path: Path) -> None:
    run, _ = commands(clone)
    with start(run, clone, tmp_path) as make:
        make.wait_for_log(READY, SETUP_TIMEOUT)
        line = re.compile(rf" → 127\.0\.0\.1:{web_server} +GET /\S* +200 ")

        def is_shown() -> bool:
            # Again and again: the terminal shows only a part of what a busy machine does.
            urllib.request.urlopen(f"http://127.0.0.1:{web_server}/").read()
            return line.search(make.log) is not None

        wait_until("a line of the span", is_shown, timeout=5)
        agent = re.search(r"Starting wirespan\t.*pid=(\d+)", make.log)
        assert agent
        os.kill(int(agent[1]), signal.SIGTERM)
        assert make.popen.wait(SHUTDOWN_TIMEOUT) == 0, make.log
    assert "unaccounted=0" in make.log


def test_on_a_terminal_the_first_command_shows_who_calls_whom(clone: Path, web_server: int) -> None:
    run, _ = commands(clone)
    unset = [word for name in os.environ if name.startswith(("MAKE", "MFLAGS", "OTEL_")) for word in ("-u", name)]
    with Terminal(["env", "-C", clone, *unset, "sh", "-c", run], columns=120) as terminal:
        terminal.wait_for("Ctrl-C ends", SETUP_TIMEOUT)
        terminal.wait_for(READY)
        urllib.request.urlopen(f"http://127.0.0.1:{web_server}/").read()
        wait_until("a row", lambda: re.search(rf" → \S*:{web_server} +http +1 ", terminal.text), timeout=5)
        terminal.type("\x03")
        terminal.wait_for_end()
        assert re.search(rf" → \S*:{web_server} +http +1 ", terminal.text)
        assert "unaccounted=0" in terminal.text


def test_the_second_command_runs_the_tests(clone: Path, tmp_path: Path) -> None:
    _, test = commands(clone)
    with start(test, clone, tmp_path, NOT_FROM_END_TO_END) as make:
        assert make.popen.wait(SETUP_TIMEOUT + TESTS_TIMEOUT) == 0, make.log
    assert len(re.findall(r"\d+ passed", make.log)) == 3, make.log
