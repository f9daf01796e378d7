"""gunicorn and uvicorn as they are run: workers that share a listening socket, with and without keep-alive."""

from __future__ import annotations

import http.client
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.exchanges import PROGRAMS, assert_all_exported, assert_paired, of_kind, watch
from support.processes import Process, free_port
from support.servers import Listening

pytestmark = pytest.mark.requires_bpf

CLIENTS = 4
REQUESTS = 25
#: of a POST: more than is read at once
BODY = bytes(300_000)

SERVERS = {
    "gunicorn": ["gunicorn", "--workers=2", "--bind=127.0.0.1:{port}", "wsgi_application:wsgi"],
    "gunicorn-threads": [
        "gunicorn", "--worker-class=gthread", "--workers=2", "--threads=4", "--keep-alive=5",
        "--bind=127.0.0.1:{port}", "wsgi_application:wsgi",
    ],
    "uvicorn": ["uvicorn", "--workers=2", "--port={port}", "wsgi_application:asgi"],
    "uvicorn-alone": ["uvicorn", "--port={port}", "wsgi_application:asgi"],
}  # fmt: skip


@contextmanager
def serving(folder: Path, name: str) -> Iterator[Listening]:
    port = free_port()
    command, *arguments = [word.format(port=port) for word in SERVERS[name]]
    program = Path(sys.executable).with_name(command)
    with Process(name, [program, *arguments], folder, {"PYTHONPATH": str(PROGRAMS)}) as process:
        process.wait_for_port(port)
        yield Listening(process, port)


def ask(port: int, keep_alive: bool) -> Counter[int]:
    """Which process answered how often. Each tenth request has a large body."""
    answered: Counter[int] = Counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    for number in range(REQUESTS):
        method, body = ("POST", BODY) if number % 10 == 9 else ("GET", None)
        connection.request(method, f"/{method.lower()}", body, {} if keep_alive else {"Connection": "close"})
        answered[int(connection.getresponse().read())] += 1
    connection.close()
    return answered


@pytest.mark.parametrize("keep_alive", [True, False], ids=["keep-alive", "close"])
@pytest.mark.parametrize("name", SERVERS)
def test_each_request_is_a_pair_and_its_workers(tmp_path: Path, name: str, keep_alive: bool) -> None:
    with serving(tmp_path, name) as server, watch(tmp_path, server.port) as agent:
        with ThreadPoolExecutor(CLIENTS) as pool:
            answered = sum(pool.map(lambda _: ask(server.port, keep_alive), range(CLIENTS)), Counter[int]())
        spans = agent.stop()
    assert_all_exported(agent, 2 * CLIENTS * REQUESTS)
    assert_paired(spans, CLIENTS * REQUESTS)
    assert Counter(span["attributes"]["process.pid"] for span in of_kind(spans, "SERVER")) == answered
    for kind in ("SERVER", "CLIENT"):
        names = Counter(span["name"] for span in of_kind(spans, kind))
        assert names == {"GET": CLIENTS * 23, "POST": CLIENTS * 2}
    assert {span["resource"]["service.name"] for span in of_kind(spans, "SERVER")} == {name.split("-")[0]}
    assert {span["attributes"]["http.response.status_code"] for span in spans} == {200}
