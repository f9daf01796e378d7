"""The command line: what is chosen without a configuration, exit statuses, and what a user's mistake looks like."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click import UsageError
from click.testing import CliRunner

import wirespan
from wirespan.service.cli import _built_in_configuration, main
from wirespan.service.registry import BUILT_IN

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
TRACES_ENDPOINT = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
PROTOCOL = "OTEL_EXPORTER_OTLP_PROTOCOL"
TRACES_PROTOCOL = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
NO_TERMINAL = "stdout is no terminal that can be redrawn"
WRONG = "receivers: {ebpf: }\nexporters: {fiel: }\nservice: {pipelines: {traces: {receivers: [ebpf]}}}\n"


@pytest.mark.parametrize(
    ("environment", "file", "reason"),
    [
        ({}, "default.yaml", f"{ENDPOINT} is not set, {NO_TERMINAL}"),
        ({ENDPOINT: ""}, "default.yaml", f"{ENDPOINT} is not set, {NO_TERMINAL}"),
        ({PROTOCOL: "grpc"}, "default.yaml", f"{ENDPOINT} is not set, {NO_TERMINAL}"),
        ({ENDPOINT: "http://h:4317"}, "otlp.yaml", f"{ENDPOINT} is set"),
        ({TRACES_ENDPOINT: "http://h:4317"}, "otlp.yaml", f"{TRACES_ENDPOINT} is set"),
        ({ENDPOINT: "http://h:4318/x"}, "otlp_http.yaml", f"{ENDPOINT} is set and has HTTP's port 4318"),
        ({ENDPOINT: "h:4318"}, "otlp_http.yaml", f"{ENDPOINT} is set and has HTTP's port 4318"),
        (
            {ENDPOINT: "http://h:80", PROTOCOL: "http/protobuf"},
            "otlp_http.yaml",
            f"{ENDPOINT} is set and {PROTOCOL} is http/protobuf",
        ),
        (
            {ENDPOINT: "http://h:4318", PROTOCOL: "http/protobuf", TRACES_PROTOCOL: "grpc"},
            "otlp.yaml",
            f"{ENDPOINT} is set and {TRACES_PROTOCOL} is grpc",
        ),
    ],
)
def test_the_environment_chooses_where_spans_go(environment: dict[str, str], file: str, reason: str) -> None:
    assert _built_in_configuration(environment) == (file, reason)


@pytest.mark.parametrize(
    ("environment", "assignments", "file", "why"),
    [
        ({"TERM": "xterm"}, (), "terminal.yaml", "stdout is a terminal"),
        ({"TERM": "xterm"}, ("receivers.ebpf.settle=2s",), "terminal.yaml", "stdout is a terminal"),
        ({"TERM": "xterm"}, ("exporters.debug.verbosity=basic",), "default.yaml", "--set names exporters.debug"),
        ({"TERM": "xterm"}, ("exporters.debug={}",), "default.yaml", "--set names exporters.debug"),
        ({"TERM": "dumb"}, (), "default.yaml", NO_TERMINAL),
        ({}, (), "default.yaml", NO_TERMINAL),
    ],
)
def test_a_terminal_gets_a_table_unless_lines_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], assignments: tuple[str, ...], file: str, why: str
) -> None:
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        assert _built_in_configuration(environment, assignments) == (file, f"{ENDPOINT} is not set, {why}")
        assert _built_in_configuration({**environment, ENDPOINT: "h:4317"}, assignments).file == "otlp.yaml"
    os.close(master)


def test_a_protocol_that_does_not_exist_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match=f'{PROTOCOL} is "http/json"; it can be grpc or http/protobuf'):
        _built_in_configuration({ENDPOINT: "http://h", PROTOCOL: "http/json"})


@pytest.mark.parametrize("command", ["run", "validate"])
def test_a_wrong_configuration_is_all_problems_and_status_2(tmp_path: Path, command: str) -> None:
    file = tmp_path / "w.yaml"
    file.write_text(WRONG, encoding="utf-8")
    result = CliRunner().invoke(main, [command, "--config", str(file)])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert f'{file}:2: exporters.fiel: unknown type of exporter; did you mean "file"?' in result.stderr
    assert f"{file}:3: service.pipelines.traces.exporters: at least one exporter is needed" in result.stderr
    assert "2 problems in the configuration" in result.stderr


@pytest.mark.parametrize("command", ["run", "validate"])
def test_a_configuration_that_cannot_be_read_is_status_2(command: str) -> None:
    result = CliRunner().invoke(main, [command, "--config", "/none.yaml"])
    assert result.exit_code == 2
    assert "/none.yaml: cannot be read: No such file or directory\n" in result.stderr


def test_validate_says_that_a_configuration_is_fine(tmp_path: Path) -> None:
    file = tmp_path / "w.yaml"
    file.write_text(WRONG.replace("fiel", "file").replace("[ebpf]", "[ebpf], exporters: [debug]"), encoding="utf-8")
    result = CliRunner().invoke(
        main, ["validate", "--config", str(file), "--set", "exporters={debug: , file: {path: x}}"]
    )
    assert (result.exit_code, result.stdout) == (0, f"{file}: fine\n")
    assert result.stderr == "warning: --set: exporters.file: is in no pipeline, so it is not started\n"


@pytest.mark.parametrize("arguments", [["runn"], ["run", "--confg"], ["run", "--config"], ["validate"]])
def test_wrong_usage_is_status_2(arguments: list[str]) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "Error: " in result.stderr


@pytest.mark.parametrize("arguments", [[], ["run"], ["validate"], ["check"], ["components"], ["version"]])
def test_every_command_explains_itself(arguments: list[str]) -> None:
    result = CliRunner().invoke(main, [*arguments, "--help"])
    assert result.exit_code == 0
    assert "Usage: " in result.stdout


def test_components_are_listed_with_their_signals_as_the_collector_lists_its_own() -> None:
    result = CliRunner().invoke(main, ["components"])
    assert result.exit_code == 0
    listed = yaml.safe_load(result.stdout)
    assert list(listed) == ["buildinfo", "receivers", "processors", "exporters", "extensions"]
    assert listed["buildinfo"]["version"] == wirespan.__version__
    stability = {found["name"]: found["stability"] for kind in list(listed)[1:] for found in listed[kind]}
    assert stability.keys() == {name for names in BUILT_IN.values() for name in names}
    assert stability["terminal"] == {"traces": "Alpha"}
    assert stability["otlp_http"] == stability["file"] == dict.fromkeys(("traces", "metrics", "logs"), "Alpha")
    assert stability["health_check"] == {"extension": "Alpha"}
    assert listed["exporters"][0] == {
        "name": "debug",
        "module": f"wirespan.exporters.debug {wirespan.__version__}",
        "stability": {"traces": "Alpha", "metrics": "Alpha", "logs": "Alpha"},
    }


@pytest.mark.parametrize("argument", ["version", "--version"])
def test_the_module_is_the_command_and_prints_the_version(argument: str) -> None:
    command = [sys.executable, "-m", "wirespan", argument]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == (
        f"wirespan {wirespan.__version__}\n"
    )


@pytest.mark.parametrize("command", ["version", "--version", "check", "--help"])
def test_a_command_that_watches_nothing_imports_nothing_heavy(command: str) -> None:
    code = (
        "import sys; from wirespan.service.cli import main; main([sys.argv[1]], standalone_mode=False) "
        "if sys.argv[1] != 'check' else main(['check', '--json'])"
    )
    heavy = "{'numpy', 'pydantic', 'yaml', 'grpc', 'opentelemetry'} & {name.partition('.')[0] for name in sys.modules}"
    script = f"import atexit, sys; atexit.register(lambda: print({heavy}, file=sys.stderr))\n{code}"
    done = subprocess.run([sys.executable, "-c", script, command], capture_output=True, text=True, check=False)
    assert done.stderr == "set()\n"
