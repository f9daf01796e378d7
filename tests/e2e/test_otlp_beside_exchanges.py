"""One pipeline for what is observed in the kernel and for what comes by OTLP."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import urllib3

from support import servers
from support.agent import Agent
from support.availability import need_command
from support.exchanges import accounts
from support.foreign_batches import every_span
from support.processes import free_port

pytestmark = [pytest.mark.requires_bpf, pytest.mark.requires_command("redis-server", "redis-benchmark")]

REQUESTS, PASSED = 200, 50


def test_both_reach_the_exporter_and_are_accounted_for_together(tmp_path: Path) -> None:
    port = free_port()
    with servers.redis(tmp_path) as redis:
        configuration: dict[str, Any] = {
            "receivers": {
                "ebpf": {"select": {"ports": [redis.port]}},
                "otlp": {"protocols": {"http": {"endpoint": f"127.0.0.1:{port}"}}},
            },
            "processors": {"memory_limiter": {"limit_mib": 1_000}, "batch": None},
            "exporters": {"file": {}},
            "service": {
                "pipelines": {
                    "traces": {
                        "receivers": ["ebpf", "otlp"],
                        "processors": ["memory_limiter", "batch"],
                        "exporters": ["file"],
                    }
                },
                "telemetry": {"logs": {"encoding": "json"}},
            },
        }
        with Agent(configuration, tmp_path) as agent:
            benchmark = [need_command("redis-benchmark"), "-p", str(redis.port), "-n", str(REQUESTS), "-c", "5"]
            subprocess.run([*benchmark, "-t", "set", "-q"], check=True, capture_output=True)
            headers = {"Content-Type": "application/x-protobuf"}
            for _ in range(PASSED):
                body = every_span(1).SerializeToString()
                url = f"http://127.0.0.1:{port}/v1/traces"
                assert urllib3.request("POST", url, body=body, headers=headers).status == 200
            agent.stop()
    scopes = [
        scope
        for line in (tmp_path / "spans.jsonl").read_text().splitlines()
        for resource in json.loads(line)["resourceSpans"]
        for scope in resource["scopeSpans"]
    ]
    passed = sum(len(scope["spans"]) for scope in scopes if scope["scope"]["name"] == "lib")
    observed = sum(len(scope["spans"]) for scope in scopes if scope["scope"]["name"] == "wirespan")
    assert passed == PASSED
    assert observed >= 2 * REQUESTS
    (account,) = accounts(agent)
    assert (account["observed"], account["exported"], account["unaccounted"]) == (
        passed + observed,
        passed + observed,
        0,
    )
