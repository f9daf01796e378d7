"""``payload: none``: every exchange is timed, sized and paired, and nothing tells what was in it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from support import servers
from support.agent import Agent
from support.availability import need_command
from support.exchanges import assert_all_exported, assert_paired, watch
from support.spans import Span

pytestmark = pytest.mark.requires_bpf

REQUESTS = 2_000


def load(agent: Agent, command: str, *words: object) -> list[Span]:
    subprocess.run([need_command(command), *map(str, words)], check=True, capture_output=True, timeout=60)
    return agent.stop()


def assert_unknown(spans: list[Span], port: int) -> None:
    assert {span["name"] for span in spans} == {f"TCP {port}"}
    names = {name for span in spans for name in span["attributes"]}
    assert not {name for name in names if name.startswith(("http.", "url.", "db.", "network.protocol."))}


@pytest.mark.requires_command("nginx", "ab")
def test_http_has_no_names_and_exact_counts_sizes_and_pairs(tmp_path: Path) -> None:
    with servers.nginx(tmp_path) as server, watch(tmp_path, server.port, ebpf={"payload": "none"}) as agent:
        url = f"http://127.0.0.1:{server.port}/index.html?secret=1"
        spans = load(agent, "ab", "-q", "-k", "-n", REQUESTS, "-c", 10, url)
        assert_all_exported(agent, 2 * REQUESTS)
    assert_paired(spans, REQUESTS)
    assert_unknown(spans, server.port)
    assert min(span["attributes"]["wirespan.response.size"] for span in spans) > 200


@pytest.mark.requires_command("redis-server", "redis-benchmark")
def test_pipelined_commands_are_exchanges_by_turns(tmp_path: Path) -> None:
    with servers.redis(tmp_path) as redis, watch(tmp_path, redis.port, ebpf={"payload": "none"}) as agent:
        words = ["-p", redis.port, "-n", 16 * REQUESTS, "-c", 10, "-P", 16, "-t", "get", "-q"]
        spans = load(agent, "redis-benchmark", *words)
    assert_unknown(spans, redis.port)
    # All turns have 16 commands, but for the first ones, which ask for the server's configuration.
    turns = [span for span in spans if span["attributes"]["wirespan.response.size"] == 16 * len("$-1\r\n")]
    assert REQUESTS * 2 <= len(turns) <= len(spans) <= REQUESTS * 2 + 10
