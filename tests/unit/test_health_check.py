"""`health_check`: what probes are told while the agent starts, runs and stops."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import pytest

from support.processes import free_port
from wirespan.extensions.health_check import FACTORY, HealthCheck, _duration
from wirespan.pipeline.component import Context, StartError
from wirespan.pipeline.counters import Counters


@contextmanager
def checking(**settings: object) -> Iterator[tuple[HealthCheck, int]]:
    port = free_port()
    config = FACTORY.config.model_validate({"endpoint": f"127.0.0.1:{port}", **settings})
    extension = FACTORY.create(config, Context("health_check", Counters()))
    extension.start()
    try:
        yield extension, port
    finally:
        extension.shutdown(time.monotonic() + 1)


def asked(port: int, path: str = "/", method: str = "GET", body: bytes | None = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request(method, path, body)
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response.status, text


def test_it_says_as_the_collector_does_whether_all_is_ready() -> None:
    with checking() as (extension, port):
        status, text = asked(port)
        assert status == 503
        assert text == '{"status":"Server not available","upSince":"0001-01-01T00:00:00Z","uptime":""}'
        extension.ready()
        status, text = asked(port)
        said = json.loads(text)
        assert (status, said["status"], list(said)) == (200, "Server available", ["status", "upSince", "uptime"])
        assert abs(datetime.fromisoformat(said["upSince"]).timestamp() - time.time()) < 5
        assert said["uptime"].endswith("s")
        extension.not_ready()
        assert asked(port)[0] == 503


@pytest.mark.parametrize(
    ("configured", "path", "status"), [("/", "/anything", 200), ("/live", "/live?a", 200), ("/live", "/", 404)]
)
def test_the_path_is_matched_as_the_collector_does(configured: str, path: str, status: int) -> None:
    with checking(path=configured) as (extension, port):
        extension.ready()
        assert asked(port, path)[0] == status


def test_other_words_may_be_configured() -> None:
    with checking(response_body={"healthy": "fine", "unhealthy": "wait"}) as (extension, port):
        assert asked(port) == (503, "wait")
        extension.ready()
        assert asked(port) == (200, "fine")


def test_a_head_or_a_body_is_answered_too() -> None:
    with checking() as (extension, port):
        extension.ready()
        assert asked(port, method="HEAD") == (200, "")
        assert asked(port, method="POST", body=b"x" * 1000)[0] == 200


def test_a_port_in_use_is_told_at_the_start() -> None:
    with checking() as (_, port), pytest.raises(StartError, match=f"cannot listen on 127.0.0.1:{port}: "):
        FACTORY.create(FACTORY.config(endpoint=f"127.0.0.1:{port}"), Context("health_check", Counters())).start()


def test_a_shutdown_is_idempotent_and_quick_with_clients_connected() -> None:
    with checking() as (extension, port):
        client = http.client.HTTPConnection("127.0.0.1", port)
        client.connect()
        began = time.monotonic()
        extension.shutdown(began + 5)
        extension.shutdown(began + 5)
        assert time.monotonic() - began < 1


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.5, "0.500s"), (61, "1m1.000s"), (3600, "1h0m0.000s"), (90061.25, "25h1m1.250s")]
)
def test_a_duration_is_written_as_go_does(seconds: float, text: str) -> None:
    assert _duration(seconds) == text
