"""The processor ``resource_detection``: what its detectors find, how it comes into resources, and what is done without."""

from __future__ import annotations

import json
import logging
import platform
import re
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import UnixStreamServer
from typing import Any

import pytest

from support.foreign_batches import every_request, every_span
from support.otlp_batches import batch_of
from support.passing import Behind, attributes_of, changed_request
from wirespan.pipeline.component import Context, StartError
from wirespan.pipeline.counters import Counters
from wirespan.pipeline.otlp_fields import SCHEMA_URL
from wirespan.processors import detectors
from wirespan.processors.detectors import DetectionError, of_docker, of_environment, of_system
from wirespan.processors.resource_detection import (
    FACTORY,
    ResourceDetectionProcessor,
    ResourceDetectionSettings,
)
from wirespan.service.config import load

OS_ONLY = {"hostname_sources": ["os"]}


def made(behind: Behind, chosen: Mapping[str, Any]) -> ResourceDetectionProcessor:
    configured = ResourceDetectionSettings.model_validate(chosen)
    processor = ResourceDetectionProcessor(configured, Context("resource_detection", Counters()), behind)
    processor.start()
    return processor


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=of the variable, team = a%20b")
    monkeypatch.delenv("DOCKER_HOST", raising=False)


def test_what_the_variable_says_is_added_to_resources_of_every_signal() -> None:
    for request in every_request().values():
        changed = changed_request(lambda behind: made(behind, {"override": False}), request)
        (_, groups) = changed.ListFields()[0]
        for group, before in zip(groups, request.ListFields()[0][1], strict=True):
            assert attributes_of(group.resource) == {**attributes_of(before.resource), "team": "a b"}
            assert group.schema_url == before.schema_url


def test_it_is_added_to_columns_too_and_replaces_what_is_there_unless_told_otherwise() -> None:
    behind = Behind()
    made(behind, {}).consume(batch_of(2))
    made(behind, {"override": False}).consume(batch_of(2))
    assert [dict(batch.resources.resources[0]) for batch in behind.columns] == [
        {"service.name": "of the variable", "team": "a b"},
        {"service.name": "service-0", "team": "a b"},
    ]


@pytest.mark.parametrize(
    ("chosen", "keys"),
    [
        ({"attributes": ["team"]}, {"team"}),
        ({"env": {"attributes": {"included": ["team", "x"]}}}, {"team"}),
        ({"env": {"attributes": {"excluded": ["team"]}}}, {"service.name"}),
        ({"detectors": ["env", "system"], "system": OS_ONLY}, {"service.name", "team", "host.name", "os.type"}),
        (
            {
                "detectors": ["system"],
                "system": {
                    **OS_ONLY,
                    "resource_attributes": {"os.type": {"enabled": False}, "host.arch": {"enabled": True}},
                },
            },
            {"host.name", "host.arch"},
        ),
    ],
)
def test_only_what_is_wanted_is_added(chosen: Mapping[str, Any], keys: set[str]) -> None:
    assert made(Behind(), chosen)._found.keys() == keys


def test_of_several_detectors_the_first_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "host.name=mine")
    assert made(Behind(), {"detectors": ["env", "system"], "system": OS_ONLY})._found["host.name"] == "mine"
    found = made(Behind(), {"detectors": ["system", "env"], "system": OS_ONLY})._found
    assert found["host.name"] == socket.gethostname()


def test_a_resource_without_a_schema_gets_that_of_what_is_added() -> None:
    request = every_span(1)
    request.resource_spans[0].schema_url = ""
    changed = changed_request(lambda behind: made(behind, {"detectors": ["system"], "system": OS_ONLY}), request)
    assert changed.resource_spans[0].schema_url == SCHEMA_URL
    assert changed.resource_spans[0].scope_spans == request.resource_spans[0].scope_spans


def test_the_system_is_described(tmp_path: Path) -> None:
    files = {
        "etc/machine-id": "0123abcd\n",
        "etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 12"\nNAME="Debian"\nVERSION_ID="12"\n',
        "proc/cpuinfo": "vendor_id : V\ncpu family : 6\nmodel : 85\nmodel name : M @ 2\nstepping : 7\ncache size : 1024 KB\n\nmodel : 1\n",
        "proc/net/fib_trie": "  |-- 127.0.0.1\n     /32 host LOCAL\n  |-- 10.1.2.3\n     /32 host LOCAL\n  |-- 10.1.2.0\n     /24 link UNICAST\n",
        "proc/net/if_inet6": "00000000000000000000000000000001 01 80 10 80 lo\nfe800000000000000000000000000001 02 40 20 80 eth0\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    wanted = frozenset(
        f"{group}.{name}"
        for group, names in {
            "host": ("name", "id", "arch", "ip", "cpu.vendor.id", "cpu.family", "cpu.model.id", "cpu.model.name"),
            "host.cpu": ("stepping", "cache.l2.size"),
            "os": ("type", "description", "name", "version", "build.id"),
        }.items()
        for name in names
    )
    found = of_system(wanted, ["os"], 1, tmp_path)
    description = found.pop("os.description")
    assert str(description).startswith("Debian GNU/Linux 12 (Linux ")
    assert found == {
        "host.name": socket.gethostname(),
        "host.id": "0123abcd",
        "host.arch": {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine()),
        "host.ip": ("10.1.2.3", "fe80::1"),
        "host.cpu.vendor.id": "V",
        "host.cpu.family": "6",
        "host.cpu.model.id": "85",
        "host.cpu.model.name": "M @ 2",
        "host.cpu.stepping": "7",
        "host.cpu.cache.l2.size": 1024,
        "os.type": "linux",
        "os.name": "Debian",
        "os.version": "12",
        "os.build.id": platform.release(),
    }


def test_this_machine_has_interfaces_with_addresses() -> None:
    found = of_system(frozenset({"host.ip", "host.mac", "host.interface"}), ["os"], 1)
    for address in found.get("host.mac", ()):  # type: ignore[union-attr]
        assert re.fullmatch("[0-9A-F]{2}(-[0-9A-F]{2}){5}", address)
    assert "lo" not in found.get("host.interface", ())  # type: ignore[operator]


def test_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    assert of_system(frozenset({"host.id", "host.cpu.family", "os.name", "host.ip"}), ["os"], 1, tmp_path) == {}


def test_a_name_server_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()
    monkeypatch.setattr(
        detectors, "_HOST_NAMES", {"dns": lambda: answered.wait(60) and "x", "os": lambda: "by the kernel"}
    )
    began = time.monotonic()
    found = made(Behind(), {"detectors": ["system"], "timeout": "400ms"})._found
    assert found["host.name"] == "by the kernel"
    assert time.monotonic() - began < 5
    answered.set()


@pytest.mark.parametrize("text", ["x", "a=b,c", "=x", "ä=1"])
def test_a_variable_of_another_form_is_no_resource(text: str) -> None:
    with pytest.raises(DetectionError):
        of_environment({"OTEL_RESOURCE_ATTRIBUTES": text})


def test_a_detector_that_fails_is_a_warning_or_keeps_the_agent_from_starting(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "nonsense")
    behind = Behind()
    request = every_span(1)
    with caplog.at_level(logging.WARNING):
        assert changed_request(lambda behind: made(behind, {}), request) == request
    assert "A detector found nothing. Going on without it." in caplog.text
    with pytest.raises(StartError, match="the detector env found nothing"):
        made(behind, {"fail_on_missing_metadata": True})


class DockerHandler(BaseHTTPRequestHandler):
    answers: Mapping[str, Any] = {
        "/info": {"Name": "node-7", "OSType": "linux"},
        f"/containers/{socket.gethostname()}/json": {"Name": "/agent", "Config": {"Image": "wirespan:1"}},
    }

    def do_GET(self) -> None:
        answer = self.answers.get(self.path)
        body = json.dumps(answer).encode()
        self.send_response(200 if answer else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "a socket"

    def log_message(self, *arguments: Any) -> None:
        """Nothing."""


@pytest.fixture
def docker(tmp_path: Path) -> Iterator[Mapping[str, str]]:
    path = tmp_path / "docker.sock"
    with UnixStreamServer(str(path), DockerHandler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield {"DOCKER_HOST": f"unix://{path}"}
        server.shutdown()
        thread.join()


def test_docker_is_asked_by_its_socket(docker: Mapping[str, str]) -> None:
    everything = frozenset({"host.name", "os.type", "container.name", "container.image.name"})
    assert of_docker(everything, 5, docker) == {
        "host.name": "node-7",
        "os.type": "linux",
        "container.name": "agent",
        "container.image.name": "wirespan:1",
    }
    assert of_docker(frozenset({"host.name"}), 5, docker) == {"host.name": "node-7"}


def test_a_docker_that_is_not_there_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(DetectionError, match="does not answer"):
        of_docker(frozenset({"host.name"}), 5, {"DOCKER_HOST": f"unix://{tmp_path}/nothing"})


def test_a_container_that_docker_does_not_know_is_a_failure(
    docker: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "other/../name")
    with pytest.raises(DetectionError, match=r"answers /containers/other%2F..%2Fname/json with 404"):
        of_docker(frozenset({"container.name"}), 5, docker)


def test_the_former_name_is_accepted_with_a_warning(tmp_path: Path) -> None:
    file = tmp_path / "w.yaml"
    file.write_text(
        "receivers: {otlp: {protocols: {grpc: }}}\nexporters: {debug: }\nprocessors: {resourcedetection: }\n"
        "service: {pipelines: {logs: {receivers: [otlp], processors: [resourcedetection], exporters: [debug]}}}\n"
    )
    configuration = load(file, {})
    assert configuration.components["processor"]["resourcedetection"].factory is FACTORY
    (warning,) = configuration.warnings
    assert 'is now called "resource_detection"' in str(warning)
