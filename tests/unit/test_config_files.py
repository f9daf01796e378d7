"""Configurations of several files, references to files, what print-config prints, and the schema for editors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from click.testing import CliRunner

from wirespan.service.cli import main
from wirespan.service.config import Configuration, load
from wirespan.service.document import ConfigurationError
from wirespan.service.schema import schema_text

ROOT = Path(__file__).parents[2]

BASE = """\
receivers: {ebpf: {select: {ports: [80, 81]}, spans: {probability: 0.5}}}
exporters:
  otlp_grpc:
    endpoint: http://one:4317
    headers: {x-tenant: blue}
  debug:
    verbosity: basic
service: {pipelines: {traces: {receivers: [ebpf], exporters: [otlp_grpc, debug]}}}
"""


def written(folder: Path, **files: str) -> list[Path]:
    paths = []
    for name, text in files.items():
        paths.append(folder / f"{name}.yaml")
        paths[-1].write_text(text, encoding="utf-8")
    return paths


def loaded(paths: list[Path], *assignments: str, **environment: str) -> Configuration:
    return load(paths[0], environment, assignments, further=paths[1:])


def problems(paths: list[Path], *assignments: str, **environment: str) -> list[str]:
    with pytest.raises(ConfigurationError) as raised:
        loaded(paths, *assignments, **environment)
    return [str(problem) for problem in raised.value.problems]


@pytest.mark.usefixtures("no_otel_variables")
def test_mappings_of_a_later_file_are_merged_and_all_else_is_replaced(tmp_path: Path) -> None:
    later = """\
receivers: {ebpf: {select: {ports: [443]}}}
exporters: {otlp_grpc: {endpoint: "http://two:4317", headers: {x-region: eu}}}
service: {telemetry: {logs: {level: debug}}}
"""
    configuration = loaded(written(tmp_path, base=BASE, later=later))
    ebpf: Any = configuration.components["receiver"]["ebpf"].config
    otlp: Any = configuration.components["exporter"]["otlp_grpc"].config
    assert [ports.first for ports in ebpf.select.ports] == [443]
    assert ebpf.spans.probability == 0.5
    assert (otlp.endpoint, set(otlp.headers)) == ("http://two:4317", {"x-tenant", "x-region"})
    assert configuration.telemetry.logs.level == "debug"
    assert configuration.pipelines[0].exporters == ("otlp_grpc", "debug")


def test_set_wins_over_all_files(tmp_path: Path) -> None:
    paths = written(tmp_path, base=BASE, later="exporters: {debug: {verbosity: normal}}")
    debug: Any = loaded(paths, "exporters.debug.verbosity=detailed").components["exporter"]["debug"].config
    assert debug.verbosity == "detailed"


def test_a_mistake_is_said_to_be_in_the_file_where_it_is(tmp_path: Path) -> None:
    base, later = written(
        tmp_path,
        base=BASE.replace("basic", "loud"),
        later="exporters:\n  debug: {max_lines: 5}\n  otlp_grpc: {timeout: 5}\n",
    )
    found = problems([base, later])
    assert [problem.removeprefix(f"{tmp_path}/").partition(": ")[0] for problem in sorted(found)] == [
        "base.yaml:7",
        "later.yaml:2",
        "later.yaml:3",
    ]


def test_a_later_file_may_be_empty_and_the_first_may_be_a_part_only(tmp_path: Path) -> None:
    assert loaded(written(tmp_path, base="", later=BASE, last="")).pipelines


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (base,) = written(tmp_path, base=BASE)
    assert problems([base, tmp_path / "missing.yaml"]) == [
        f"{tmp_path}/missing.yaml: cannot be read: No such file or directory"
    ]


@pytest.mark.usefixtures("no_otel_variables")
def test_a_file_that_is_referred_to_is_a_section_or_text(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    (tmp_path / "queue.yaml").write_text("queue_size: ${env:QUEUE:-7}\nsizer: requests\n")
    text = BASE.replace(
        "headers: {x-tenant: blue}",
        f'headers: {{authorization: "Bearer ${{file:{tmp_path}/token}}"}}\n    sending_queue: ${{file:{tmp_path}/queue.yaml}}',
    )
    otlp: Any = loaded(written(tmp_path, base=text)).components["exporter"]["otlp_grpc"].config
    assert otlp.headers["authorization"].get_secret_value() == "Bearer s3cret"
    assert otlp.sending_queue.queue_size == 7


@pytest.mark.usefixtures("no_otel_variables")
def test_a_number_from_a_file_is_a_number_and_in_quotes_text(tmp_path: Path) -> None:
    (tmp_path / "number").write_text("5\n")
    reference = f"${{file:{tmp_path}/number}}"
    text = BASE.replace("{x-tenant: blue}", f"\n      x-tenant: {reference}")
    (problem,) = problems(written(tmp_path, base=text))
    assert "exporters.otlp_grpc.headers.x-tenant" in problem
    assert problem.endswith("is not text; write it in quotes")
    otlp: Any = (
        loaded(written(tmp_path, base=text.replace(reference, f'"{reference}"')))
        .components["exporter"]["otlp_grpc"]
        .config
    )
    assert otlp.headers["x-tenant"].get_secret_value() == "5"


def test_what_is_wrong_in_a_file_that_is_referred_to_is_said_by_its_name_and_line(tmp_path: Path) -> None:
    part = tmp_path / "queue.yaml"
    part.write_text("\nqueue_sise: 7\n")
    text = BASE.replace("headers: {x-tenant: blue}", f"sending_queue: ${{file:{part}}}")
    assert problems(written(tmp_path, base=text)) == [
        f'{part}:2: exporters.otlp_grpc.sending_queue.queue_sise: unknown key; did you mean "queue_size"?'
    ]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"\xff", "is not UTF-8 text (byte 0)"),
        (b"a: ${file:PART}", "includes itself"),
    ],
)
def test_a_file_that_cannot_stand_for_anything_is_a_problem(
    content: bytes | None, problem: str, tmp_path: Path
) -> None:
    part = tmp_path / "part"
    if content is not None:
        part.write_bytes(content.replace(b"PART", str(part).encode()))
    text = BASE.replace("headers: {x-tenant: blue}", f"sending_queue: ${{file:{part}}}")
    assert any(f"{part} {problem}" in found for found in problems(written(tmp_path, base=text)))


@pytest.mark.usefixtures("no_otel_variables")
def test_print_config_prints_what_is_in_effect_without_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "s3cret")
    text = BASE.replace("x-tenant: blue", "authorization: 'Bearer ${env:TOKEN}'").replace(
        "http://one:4317", "http://user:s3cret@one:4317"
    )
    text = text.replace(
        "probability: 0.5",
        "probability: 0.5}, id_key: '00112233445566778899aabbccddeeff', capture: {request_headers: [host]",
    )
    later = "exporters: {otlp_http: {traces_endpoint: 'https://two/v1?api=s3cret&b=s3cret'}}"
    paths = written(tmp_path, base=text, later=later)
    arguments = [word for path in paths for word in ("--config", str(path))]
    result = CliRunner().invoke(main, ["print-config", *arguments, "--set", "exporters.debug.verbosity=normal"])
    assert result.exit_code == 0, result.output
    assert "s3cret" not in result.stdout
    printed = yaml.safe_load(result.stdout)
    assert printed["exporters"] == {
        "otlp_grpc": {"endpoint": "http://[REDACTED]@one:4317", "headers": {"authorization": "[REDACTED]"}},
        "debug": {"verbosity": "normal"},
        "otlp_http": {"traces_endpoint": "https://two/v1?api=[REDACTED]&b=[REDACTED]"},
    }
    assert printed["receivers"]["ebpf"]["id_key"] == "[REDACTED]"
    assert printed["receivers"]["ebpf"]["capture"] == {"request_headers": ["host"]}


def test_names_of_attributes_are_printed_and_the_key_of_a_hash_is_not(tmp_path: Path) -> None:
    file = tmp_path / "w.yaml"
    file.write_text(
        """\
receivers: {otlp: {protocols: {grpc: }}}
processors:
  attributes: {actions: [{key: a, action: delete}], include: {match_type: strict, attributes: [{key: b, value: c}]}}
  redaction: {allowed_keys: [a], hash_function: hmac-sha256, hmac_key: "0123456789abcdef0123456789abcdef"}
exporters: {debug: }
service: {pipelines: {traces: {receivers: [otlp], processors: [attributes, redaction], exporters: [debug]}}}
"""
    )
    result = CliRunner().invoke(main, ["print-config", "--config", str(file)])
    processors = yaml.safe_load(result.stdout)["processors"]
    assert processors["attributes"]["actions"] == [{"key": "a", "action": "delete"}]
    assert processors["attributes"]["include"]["attributes"] == [{"key": "b", "value": "c"}]
    assert processors["redaction"]["allowed_keys"] == ["a"]
    assert processors["redaction"]["hmac_key"] == "[REDACTED]"


def test_print_config_refuses_what_is_wrong(tmp_path: Path) -> None:
    (base,) = written(tmp_path, base=BASE.replace("ports", "port"))
    result = CliRunner().invoke(main, ["print-config", "--config", str(base)])
    assert result.exit_code == 2
    assert 'did you mean "ports"?' in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("file", sorted((ROOT / "config").glob("*.yaml")), ids=lambda file: file.stem)
def test_what_is_printed_is_a_configuration_that_means_the_same(file: Path, tmp_path: Path) -> None:
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://here:4317"}
    result = CliRunner().invoke(main, ["print-config", "--config", str(file)], env=environment)
    (again,) = written(tmp_path, again=result.stdout)
    assert load(again, environment).components == load(file, environment).components


def test_validate_takes_several_files(tmp_path: Path) -> None:
    base, later = written(tmp_path, base=BASE, later="exporters: {debug: {verbosity: normal}}")
    result = CliRunner().invoke(main, ["validate", "--config", str(base), "--config", str(later)])
    assert (result.exit_code, result.stdout) == (0, f"{base}, {later}: fine\n")


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    made: dict[str, Any] = json.loads((ROOT / "config" / "schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(made)
    return made


def test_the_schema_is_that_of_the_models() -> None:
    assert (ROOT / "config" / "schema.json").read_text() == schema_text(), "run: make schema"


@pytest.mark.parametrize("file", sorted((ROOT / "config").glob("*.yaml")), ids=lambda file: file.stem)
def test_a_ready_made_configuration_is_valid_by_the_schema(file: Path, schema: dict[str, Any]) -> None:
    jsonschema.validate(yaml.safe_load(file.read_text()), schema)


def test_a_configuration_with_everything_is_valid_by_the_schema(schema: dict[str, Any]) -> None:
    jsonschema.validate(
        yaml.safe_load(
            """\
receivers:
  ebpf/one: {select: {ports: [80, 8000-8999], exclude: {pids: [1]}}, settle: 10ms, cpu_budget: 0.5, id_key: "${env:KEY}"}
  otlp: {protocols: {grpc: {max_recv_msg_size_mib: "${env:MIB:-4}"}, http: }}
processors: {batch: {timeout: 0}, memory_limiter: "${file:limits.yaml}", of_a_plug_in: {x: 1}}
exporters: {otlp/old: {sending_queue: {enabled: "${env:QUEUE}"}}, otlphttp: , debug: {verbosity: "${env:V}"}}
service: {pipelines: {logs/x: {receivers: [otlp], exporters: [debug]}}, telemetry: {logs: {level: warn}}}
""".replace("timeout: 0", 'timeout: "0"').replace('"${file:limits.yaml}"', "{limit_mib: 5}")
        ),
        schema,
    )


@pytest.mark.parametrize(
    "text",
    [
        "recievers: {}",
        "receivers: {ebpf: {port: 80}}",
        "receivers: {otlp: {protocols: {grpc: {max_recv_msg_size_mib: many}}}}",
        "processors: {batch: {timeout: 5}}",
        "exporters: {debug: {verbosity: loud}}",
        "service: {pipelines: {traces: {receivers: ebpf}}}",
    ],
)
def test_a_mistake_is_one_by_the_schema(text: str, schema: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(text), schema)
