"""Durations by the semantic conventions are those of the spans, and count what the load generators count; exemplars are spans
that went up."""

from __future__ import annotations

import re
import socket
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support import servers
from support.counting import attributes_of, counting, generate, metrics, points
from support.dns import dig, dnsmasq
from support.exchanges import assert_all_accounted
from support.metrics import read_metrics
from support.processes import free_port
from support.servers import Listening
from support.spans import Span

pytestmark = [pytest.mark.requires_bpf]

needs_redis = pytest.mark.requires_command("redis-server", "redis-benchmark")
needs_nginx = pytest.mark.requires_command("nginx", "ab")

SERVER, CLIENT = "http.server.request.duration", "http.client.request.duration"
DATABASE = "db.client.operation.duration"
SEMANTIC = (SERVER, CLIENT, DATABASE, "dns.lookup.duration")


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listening]:
    locations = "location / { return 200 ok; } location /missing { return 404; } location /broken { return 503; }"
    with servers.nginx(tmp_path_factory.mktemp("nginx"), locations) as server:
        yield server


def ask(server: Listening, path: str, requests: int) -> int:
    """How many requests ab says that it has made."""
    said = generate("ab", "-q", "-k", "-n", requests, "-c", 10, f"http://127.0.0.1:{server.port}/{path}")
    (complete,) = re.findall(r"Complete requests: +(\d+)", said)
    return int(complete)


def counts(folder: Path, name: str, *attributes: str) -> dict[tuple[Any, ...], int]:
    found: Counter[tuple[Any, ...]] = Counter()
    for values, point in points(folder, name):
        found[tuple(values.get(attribute) for attribute in attributes)] += point.count
    return dict(found)


def buckets(spans: list[Span], bounds: list[float]) -> list[int]:
    durations = [span["end"] - span["start"] for span in spans]
    places = np.searchsorted([round(bound * 1e9) for bound in bounds], durations, side="left")
    return np.bincount(places, minlength=len(bounds) + 1).tolist()


@needs_nginx
def test_http_counts_what_ab_counts_in_the_buckets_of_its_spans(tmp_path: Path, nginx: Listening) -> None:
    with counting(tmp_path, nginx.port) as agent:
        asked = {path: ask(nginx, path, number) for path, number in (("", 10_000), ("missing", 2_000), ("broken", 500))}
        spans = agent.stop()
    statuses = (("", 200, None, None), ("missing", 404, None, "404"), ("broken", 503, "503", "503"))
    for name, error in ((SERVER, 2), (CLIENT, 3)):
        expected = {("GET", row[1], row[error], "1.0", nginx.port): asked[row[0]] for row in statuses}
        attributes = ("http.request.method", "http.response.status_code", "error.type", "network.protocol.version")
        assert counts(tmp_path, name, *attributes, "server.port") == expected
        for values, point in points(tmp_path, name):
            assert set(values) <= {*attributes, "server.port", "url.scheme"}
            assert ("url.scheme" in values) is (name == SERVER)
            kind = "SERVER" if name == SERVER else "CLIENT"
            status = values["http.response.status_code"]
            of = [s for s in spans if s["kind"] == kind and s["attributes"]["http.response.status_code"] == status]
            assert list(point.bucket_counts) == buckets(of, list(point.explicit_bounds))
            assert point.sum == pytest.approx(sum(s["end"] - s["start"] for s in of) / 1e9, rel=1e-9)
            assert point.start_time_unix_nano <= min(s["start"] for s in of)


@needs_nginx
def test_what_is_sampled_is_estimated_and_says_so(tmp_path: Path, nginx: Listening) -> None:
    """A tenth of 10,000 at each end: five standard deviations are 15 %."""
    with counting(tmp_path, nginx.port, spans={"probability": 0.1}) as agent:
        asked = ask(nginx, "", 10_000)
        spans = agent.stop()
    for name, kind in ((SERVER, "SERVER"), (CLIENT, "CLIENT")):
        (found,) = counts(tmp_path, name).values()
        assert found == 10 * len([span for span in spans if span["kind"] == kind])
        assert found == pytest.approx(asked, rel=0.15)
    scopes = {metric.name: attributes_of(scope.attributes) for scope, metric in metrics(tmp_path)}
    for name, attributes in scopes.items():
        assert attributes == ({"wirespan.sampling.estimated": True} if name in SEMANTIC else {})


@needs_nginx
def test_under_a_budget_a_span_counts_for_as_many_as_it_says(tmp_path: Path, nginx: Listening) -> None:
    """Of each process the same resource as what the kernel counts of it."""
    budget, instance = {"max_per_second": 200}, {"interval": "1s", "edges": "instance"}
    with counting(tmp_path, nginx.port, spans=budget, metrics=instance) as agent:
        asked = 0
        for _ in range(12):  # for longer than it takes until the levels follow
            asked += ask(nginx, "", 1_000)
            time.sleep(0.3)
        spans = agent.stop()
    for name, kind in ((SERVER, "SERVER"), (CLIENT, "CLIENT")):
        stands_for = [1 / s["attributes"].get("wirespan.sampling.probability", 1.0) for s in spans if s["kind"] == kind]
        assert 0 < len(stands_for) < asked / 4
        assert max(stands_for) > 2
        found = [point for _, point in points(tmp_path, name)]
        # Each bucket is a whole number.
        assert sum(p.count for p in found) == pytest.approx(sum(stands_for), abs=len(found) * 15 / 2)
    counted = resources_of(tmp_path, "wirespan.exchange.duration")
    assert {"nginx", "ab"} == {service for service, _ in counted}
    assert resources_of(tmp_path, SERVER) == {one for one in counted if one[0] == "nginx"}
    assert resources_of(tmp_path, CLIENT) <= counted  # one of which no span was kept has none


def resources_of(folder: Path, *names: str) -> set[tuple[str, int]]:
    """Service and process of those that have these metrics."""
    found = set()
    for group in read_metrics(folder / "metrics.jsonl")[-1].resource_metrics:
        said = attributes_of(group.resource.attributes)
        if {metric.name for scope in group.scope_metrics for metric in scope.metrics} & set(names):
            found.add((said["service.name"], said["process.pid"]))
    return found


@needs_nginx
def test_listed_routes_name_server_spans_and_tell_series_apart(tmp_path: Path, nginx: Listening) -> None:
    http = {"routes": ["/users/{id}", "/static/*"]}
    with counting(tmp_path, nginx.port, http=http) as agent:
        for path in ("users/1", "users/2?name=x", "static/a/b.css", "other"):
            ask(nginx, path, 100)
        spans = agent.stop()
    routes = {"/users/{id}": 200, "/static/*": 100, None: 100}
    assert counts(tmp_path, SERVER, "http.route") == {(route,): count for route, count in routes.items()}
    assert counts(tmp_path, CLIENT, "http.route") == {(None,): 400}
    names = Counter((span["name"], span["kind"], span["attributes"].get("http.route")) for span in spans)
    expected = {(f"GET {route}" if route else "GET", "SERVER", route): count for route, count in routes.items()}
    assert names == expected | {("GET", "CLIENT", None): 400}


@needs_nginx
def test_without_spans_there_is_nothing_to_count(tmp_path: Path, nginx: Listening) -> None:
    with counting(tmp_path, nginx.port, spans={"probability": 0.0}) as agent:
        ask(nginx, "", 1_000)
        agent.stop()
    names = {metric.name for _, metric in metrics(tmp_path)}
    assert "wirespan.exchange.duration" in names
    assert names.isdisjoint(SEMANTIC)


@needs_nginx
def test_a_pipeline_of_metrics_alone_has_counts_and_no_exemplars(tmp_path: Path, nginx: Listening) -> None:
    with counting(tmp_path, nginx.port, signals=("metrics",)) as agent:
        asked = ask(nginx, "", 2_000)
        agent.stop()
    for name in (SERVER, CLIENT):
        assert counts(tmp_path, name) == {(): asked}
    assert not [point for name in (SERVER, CLIENT) for _, point in points(tmp_path, name) if point.exemplars]


@needs_redis
@pytest.mark.parametrize(("requests", "pipeline"), [(30_000, 1), (10_000, 16)])
def test_redis_counts_what_redis_benchmark_counts(tmp_path: Path, requests: int, pipeline: int) -> None:
    with servers.redis(tmp_path) as server, counting(tmp_path, server.port) as agent:
        generate("redis-benchmark", "-p", server.port, "-n", requests, "-c", 20, "-P", pipeline, "-t", "set,lpop", "-q")
        generate("redis-cli", "-p", server.port, "LPOP", "key:__rand_int__")
        assert agent.process.stop() == 0, agent.log
    account = assert_all_accounted(agent)
    found = counts(tmp_path, DATABASE, "db.operation.name", "db.response.status_code", "error.type")
    asked = {name: count for name, count in found.items() if name[0] in ("SET", "LPOP")}
    assert asked == {
        ("SET", None, None): requests,
        ("LPOP", None, None): requests,
        ("LPOP", "WRONGTYPE", "WRONGTYPE"): 1,
    }
    assert sum(found.values()) == account["observed"] // 2
    assert {(values["db.system.name"], values["server.port"]) for values, _ in points(tmp_path, DATABASE)} == {
        ("redis", server.port)
    }


@pytest.mark.requires_command("dnsmasq", "dig")
def test_lookups_of_names_count_by_name(tmp_path: Path) -> None:
    with dnsmasq(tmp_path) as port, counting(tmp_path, port) as agent:
        for name in ("here.test", "here.test", "nowhere.test"):
            dig(port, name)
        agent.stop()
    assert counts(tmp_path, "dns.lookup.duration", "dns.question.name", "error.type") == {
        ("here.test", None): 2,
        ("nowhere.test", "host_not_found"): 1,
    }


def test_a_request_that_nobody_answers_counts_with_its_error(tmp_path: Path) -> None:
    port = free_port()
    with counting(tmp_path, port) as agent:
        with socket.create_server(("127.0.0.1", port)) as listener:
            for _ in range(20):
                with socket.create_connection(("127.0.0.1", port)) as client, listener.accept()[0] as accepted:
                    client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                    assert accepted.recv(100)
        agent.stop()
    for name in (SERVER, CLIENT):
        assert counts(tmp_path, name, "http.request.method", "error.type", "http.response.status_code") == {
            ("GET", "connection_closed", None): 20
        }


@needs_nginx
@needs_redis
def test_exemplars_are_spans_that_went_up(tmp_path: Path, nginx: Listening) -> None:
    with (
        servers.redis(tmp_path) as redis,
        counting(tmp_path, nginx.port, redis.port, spans={"probability": 0.2}) as agent,
    ):
        for path in ("", "missing"):
            ask(nginx, path, 3_000)
        for depth in (1, 16):
            generate("redis-benchmark", "-p", redis.port, "-n", 3_000, "-c", 5, "-P", depth, "-t", "get", "-q")
        agent.wait_for_spans(3_000)
        spans = {(span["trace_id"], span["span_id"]): span for span in agent.stop()}
    with_exemplars: set[tuple[Any, ...]] = set()
    for batch in range(-len((tmp_path / "metrics.jsonl").read_text().splitlines()), 0):
        for _, metric in metrics(tmp_path, batch):
            for point in (*metric.exponential_histogram.data_points, *metric.histogram.data_points):
                said = attributes_of(point.attributes)
                times = [exemplar.time_unix_nano for exemplar in point.exemplars]
                assert times == sorted(times)
                for exemplar in point.exemplars:
                    span = spans[exemplar.trace_id.hex(), exemplar.span_id.hex()]
                    assert exemplar.as_double == (span["end"] - span["start"]) / 1e9
                    assert exemplar.time_unix_nano == span["end"]
                    assert_of_series(span, metric.name, said)
                    with_exemplars.add((metric.name, *said.items()))
    series = {
        (name, *values.items())
        for name in (SERVER, CLIENT, DATABASE, "wirespan.exchange.duration")
        for values, point in points(tmp_path, name)
        if point.count > 100
    }
    assert len(series) >= 2 * 2 + 1 + 2 * 3
    assert with_exemplars >= series


def assert_of_series(span: Span, metric: str, said: dict[str, Any]) -> None:
    """Whether a span is one of those that a point counts."""
    assert said["server.port"] == span["attributes"]["server.port"]
    status = span["attributes"].get("http.response.status_code")
    if metric in SEMANTIC:
        assert metric.split(".")[1].upper() == span["kind"]
        assert said.get("http.response.status_code") == status
        return
    assert metric == "wirespan.exchange.duration"
    assert said["span.kind"] == f"SPAN_KIND_{span['kind']}"
    assert said["network.protocol.name"] == span["attributes"]["network.protocol.name"]
    assert said["wirespan.response.status_class"] == ("client_error" if status == 404 else "success")
    assert said["wirespan.peer.class"] == "machine"
