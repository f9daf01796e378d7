"""Load generators know how many requests they made; both ends of the connections saw exactly as many exchanges."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import servers
from support.agent import Agent
from support.counting import generate, redis_calls
from support.exchanges import assert_all_accounted, assert_all_exported, count_kinds, watch
from support.servers import Listening

pytestmark = pytest.mark.requires_bpf

REDIS_REQUESTS = 100_000
HTTP_REQUESTS = 20_000
CONNECTIONS = 50


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listening]:
    with servers.nginx(tmp_path_factory.mktemp("nginx")) as server:
        yield server


def assert_counts(agent: Agent, folder: Path, expected: int) -> None:
    """Stop the agent; each end has seen so many exchanges, and all of them were exported."""
    assert agent.process.stop() == 0, agent.log
    assert_all_exported(agent, 2 * expected)
    assert counts_taken_from(folder / "spans.jsonl") == {"SERVER": expected, "CLIENT": expected}


def counts_taken_from(spans: Path) -> dict[str, int]:
    """The spans by kind. The file, up to 200 MB, is removed: pytest keeps those of three runs."""
    counts = count_kinds(spans)
    spans.unlink()
    return counts


@pytest.mark.requires_command("redis-server", "redis-benchmark")
def test_redis_benchmark_has_as_many_exchanges_as_redis_has_executed_commands(tmp_path: Path) -> None:
    with servers.redis(tmp_path) as server, watch(tmp_path, server.port) as agent:
        generate("redis-benchmark", "-p", server.port, "-n", REDIS_REQUESTS, "-c", CONNECTIONS, "-t", "set", "-q")
        assert agent.process.stop() == 0, agent.log  # before anybody asks for the counts
        calls = redis_calls(server.port)
        assert calls["set"] == REDIS_REQUESTS
        # redis-benchmark asks for some of the server's configuration before it begins.
        assert_counts(agent, tmp_path, sum(calls.values()))


@pytest.mark.requires_command("nginx", "ab")
@pytest.mark.parametrize("keep_alive", [["-k"], []], ids=["keep-alive", "a connection each"])
def test_ab(tmp_path: Path, nginx: Listening, keep_alive: list[str]) -> None:
    with watch(tmp_path, nginx.port) as agent:
        generate("ab", "-q", *keep_alive, "-n", HTTP_REQUESTS, "-c", CONNECTIONS, f"http://127.0.0.1:{nginx.port}/")
        assert_counts(agent, tmp_path, HTTP_REQUESTS)


@pytest.mark.requires_command("nginx", "h2load")
def test_h2load(tmp_path: Path, nginx: Listening) -> None:
    words = ["--h1", "-n", HTTP_REQUESTS, "-c", CONNECTIONS, "-t", 1]
    with watch(tmp_path, nginx.port) as agent:
        output = generate("h2load", *words, f"http://127.0.0.1:{nginx.port}/")
        assert f"{HTTP_REQUESTS} succeeded" in output
        assert_counts(agent, tmp_path, HTTP_REQUESTS)


@pytest.mark.requires_command("nginx", "wrk")
def test_wrk_which_leaves_its_last_requests_unfinished(tmp_path: Path, nginx: Listening) -> None:
    with watch(tmp_path, nginx.port) as agent:
        output = generate("wrk", "-d", "1s", "-c", CONNECTIONS, "-t", 1, f"http://127.0.0.1:{nginx.port}/")
        (count,) = map(int, re.findall(r"(\d+) requests in", output))
        assert agent.process.stop() == 0, agent.log
        assert not assert_all_accounted(agent)["dropped"]
        for kind, seen in counts_taken_from(tmp_path / "spans.jsonl").items():
            assert count <= seen <= count + CONNECTIONS, kind
