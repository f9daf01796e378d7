"""What deploy/ and the Dockerfile grant is what is needed and no more; systemd's own tools look at the unit."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.agent import COMMAND
from support.availability import need_tool, unavailable
from support.capabilities import NEEDED
from support.processes import free_port
from tools import TOOLS
from wirespan.service.config import load
from wirespan.service.lifecycle import SHUTDOWN_SECONDS

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
UNIT = DEPLOY / "systemd" / "wirespan.service"
#: 0 is closed, 10 open, as `systemd-analyze security` counts; what is left is the capabilities, /proc and the network.
EXPOSURE_LIMIT = 3.0

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze; it comes with systemd only"
)


@pytest.fixture
def service() -> dict[str, str]:
    parser = ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNIT)
    return dict(parser["Service"])


@pytest.fixture
def compose() -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]


def test_the_unit_grants_the_capabilities_that_are_needed(service: dict[str, str]) -> None:
    assert sorted(service["AmbientCapabilities"].split()) == sorted(NEEDED)
    assert service["CapabilityBoundingSet"] == service["AmbientCapabilities"]


def test_the_unit_leaves_open_what_the_agent_cannot_do_without(service: dict[str, str]) -> None:
    # Each of them would hide processes or make capabilities of the host worthless.
    assert {"PrivateUsers", "PrivatePIDs", "ProtectProc", "ProcSubset", "PrivateNetwork"} & service.keys() == set()
    assert "bpf" in service["SystemCallFilter"].split()
    assert {"AF_INET", "AF_INET6"} <= set(service["RestrictAddressFamilies"].split())


def test_systemd_waits_longer_for_the_end_than_the_agent_takes(service: dict[str, str]) -> None:
    assert float(service["TimeoutStopSec"]) > SHUTDOWN_SECONDS


def test_the_command_of_the_unit_runs_with_the_configuration_that_is_installed(
    service: dict[str, str], tmp_path: Path
) -> None:
    program, *arguments = service["ExecStart"].split()
    assert (Path(program).name, arguments[:2]) == ("wirespan", ["run", "--config"])
    page = (ROOT / "docs" / "deployment.md").read_text()
    installed = re.search(rf"install .* (\S+) {re.escape(arguments[2])}$", page, re.MULTILINE)
    assert installed
    assert load(ROOT / installed[1], {}).warnings == ()


@needs_systemd
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name  # with a command that is there: its absence would be all that is found
    unit.write_text(re.sub(r"^ExecStart=\S+", f"ExecStart={COMMAND}", UNIT.read_text(), flags=re.MULTILINE))
    result = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stderr) == (0, "")


@needs_systemd
def test_systemd_finds_the_unit_little_exposed() -> None:
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", UNIT]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    found = re.search(r"Overall exposure level for wirespan\.service: ([\d.]+)", result.stdout)
    if found is None:
        unavailable(f"this systemd-analyze cannot look at a unit offline: {result.stderr}", obtainable=False)
    assert float(found[1]) < EXPOSURE_LIMIT, result.stdout


def test_the_composition_grants_the_same_and_no_privilege(compose: dict[str, Any]) -> None:
    agent = compose["wirespan"]
    assert agent["cap_drop"] == ["ALL"]
    assert sorted(f"CAP_{name}" for name in agent["cap_add"]) == sorted(NEEDED)
    assert (agent["pid"], agent["read_only"]) == ("host", True)
    assert "privileged" not in agent


@pytest.mark.requires_tool("compose-spec")
def test_compose_accepts_the_composition(tmp_path: Path) -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    misspelt = tmp_path / "compose.yaml"
    misspelt.write_text(text.replace("cap_add", "capadd"))
    read, refused = (
        subprocess.run([need_tool("compose-spec"), "-format", "json", path], capture_output=True, text=True, timeout=60)
        for path in (DEPLOY / "compose.yaml", misspelt)
    )
    assert read.returncode == 0, read.stderr
    assert json.loads(read.stdout)["services"]["wirespan"]["ulimits"] == {"nice": 20}
    assert "services.wirespan.capadd" in refused.stderr
    assert refused.returncode != 0


def test_the_commands_in_the_dockerfile_and_in_its_page_grant_the_same() -> None:
    for page in ("Dockerfile", "docs/deployment.md"):
        text = (ROOT / page).read_text()
        granted = re.findall(r"--cap-add (\w+)", text)
        assert sorted(f"CAP_{name}" for name in granted) == sorted(NEEDED), page
        assert "--privileged" not in text


def mounted(service: Mapping[str, Any]) -> dict[str, Path]:
    """What is at a path in a service of the composition, of this repository."""
    (volume,) = service["volumes"]
    source, target, mode = volume.split(":")
    assert mode == "ro"
    return {target: (DEPLOY / source).resolve()}


def test_services_of_the_composition_reach_each_other(compose: dict[str, Any]) -> None:
    collector = yaml.safe_load((DEPLOY / "collector.yaml").read_text())
    endpoints = {name: exporter["endpoint"] for name, exporter in collector["exporters"].items() if name != "debug"}
    assert {re.sub("^http://|:.*", "", endpoint) for endpoint in endpoints.values()} == {"jaeger", "prometheus"}
    assert {"jaeger", "prometheus"} < compose.keys()
    port = collector["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"].rpartition(":")[2]
    assert f"127.0.0.1:{port}:{port}" in compose["collector"]["ports"]
    assert compose["wirespan"]["environment"]["COLLECTOR_ENDPOINT"] == f"localhost:{port}"
    ((path, file),) = mounted(compose["collector"]).items()
    assert file == DEPLOY / "collector.yaml"
    assert compose["collector"]["command"] == [f"--config={path}"]


def test_the_agent_of_the_composition_sends_each_signal_that_its_collector_takes(compose: dict[str, Any]) -> None:
    ((path, file),) = mounted(compose["wirespan"]).items()
    assert compose["wirespan"]["command"] == ["run", f"--config={path}"]
    assert load(file, compose["wirespan"]["environment"]).warnings == ()
    service = yaml.safe_load(file.read_text())["service"]
    sent = service["pipelines"].keys() | service["telemetry"].keys()
    assert yaml.safe_load((DEPLOY / "collector.yaml").read_text())["service"]["pipelines"].keys() == sent


def test_prometheus_of_the_composition_is_started_as_its_configuration_says(compose: dict[str, Any]) -> None:
    ((path, folder),) = mounted(compose["prometheus"]).items()
    command = compose["prometheus"]["command"]
    assert command[0] == f"--config.file={path}/prometheus.yaml"
    said = re.findall(r"--(?:web|enable)\S+", (folder / "prometheus.yaml").read_text())
    assert said
    assert set(said) <= set(command)


def test_the_images_of_the_composition_are_of_the_versions_that_tests_run_against(compose: dict[str, Any]) -> None:
    collector, prometheus = TOOLS["otelcol"].version, TOOLS["prometheus"].version.split(".")[1]
    assert compose["collector"]["image"].endswith(f":{collector}")
    assert compose["prometheus"]["image"].endswith(f":v{int(prometheus) // 100}.{int(prometheus) % 100}.0")


@pytest.mark.requires_tool("otelcol")
def test_the_collector_accepts_the_configuration_of_the_composition(tmp_path: Path) -> None:
    path = tmp_path / "collector.yaml"
    path.write_text((DEPLOY / "collector.yaml").read_text().replace("4317", str(free_port())))
    command = [need_tool("otelcol"), "validate", "--config", path]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
