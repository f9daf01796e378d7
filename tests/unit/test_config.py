"""A whole configuration: what is accepted, and how each mistake is worded."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, SecretStr, field_validator

from wirespan.pipeline.component import ComponentConfig, Factory
from wirespan.service.config import Configuration, load
from wirespan.service.document import ConfigurationError
from wirespan.service.registry import BUILT_IN, DEPRECATED, LoadError, Registry


class Select(ComponentConfig):
    ports: list[int] = Field(default_factory=list)


class Probe(ComponentConfig):
    select: Select | None = None
    probability: float = Field(default=1, ge=0, le=1)
    mode: Literal["turns", "segments"] = "turns"


class Sink(ComponentConfig):
    endpoint: str
    headers: dict[str, int] = Field(default_factory=dict)
    password: SecretStr = SecretStr("")

    @field_validator("endpoint")
    @classmethod
    def _has_a_port(cls, endpoint: str) -> str:
        if ":" not in endpoint:
            raise ValueError(f'"{endpoint}" has no port')
        return endpoint


class Nothing(ComponentConfig):
    pass


def both_in_segments(one: Probe, other: Probe) -> str | None:
    return "segments would be doubled; use turns" if one.mode == other.mode == "segments" else None


FACTORIES = [
    Factory("receiver", "probe", Probe, object, conflict=both_in_segments),
    Factory("processor", "filter", Nothing, object),
    Factory("exporter", "sink", Sink, object, deprecated_names=("drain",)),
    Factory("exporter", "void", Nothing, object),
    Factory("receiver", "gauge", Nothing, object, signals=frozenset({"metrics"})),
    Factory("exporter", "dial", Nothing, object, signals=frozenset({"traces", "metrics"})),
]
SERVICE = "service: {pipelines: {traces: {receivers: [probe], exporters: [void]}}}\n"
VALID = "receivers: {probe: }\nexporters: {void: }\n" + SERVICE


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path("w.yaml")


def loaded(file: Path, text: str, *assignments: str) -> Configuration:
    file.write_text(text, encoding="utf-8")
    return load(file, {}, assignments, Registry(lambda: FACTORIES))


def problems(file: Path, text: str, *assignments: str) -> list[str]:
    with pytest.raises(ConfigurationError) as raised:
        loaded(file, text, *assignments)
    return [str(problem) for problem in raised.value.problems]


def probe_problem(file: Path, settings: str) -> str:
    """The one problem of a receiver's settings, without its position."""
    (problem,) = problems(file, f"receivers: {{probe: {settings}}}\nexporters: {{void: }}\n" + SERVICE)
    assert problem.startswith("w.yaml:1: receivers.probe")
    return problem.removeprefix("w.yaml:1: receivers.probe").removeprefix(".")


def test_an_empty_component_has_its_defaults(file: Path) -> None:
    configuration = loaded(file, VALID)
    assert configuration.components["receiver"]["probe"].config == Probe()
    assert configuration.pipelines[0].exporters == ("void",)
    assert configuration.warnings == ()


def test_instances_of_a_type_are_told_apart_by_name(file: Path) -> None:
    text = (
        "receivers: {probe/a: {probability: 0}, probe/b: }\nexporters: {void: }\n"
        "service: {pipelines: {traces: {receivers: [probe/a, probe/b], exporters: [void]}}}\n"
    )
    receivers = loaded(file, text).components["receiver"]
    assert [receivers[id].config for id in ("probe/a", "probe/b")] == [Probe(probability=0), Probe()]


@pytest.mark.parametrize(
    ("second", "used", "refused"),
    [("segments", True, True), ("turns", True, False), ("segments", False, False)],
    ids=["alike", "apart", "unused"],
)
def test_components_that_conflict_are_refused_if_both_run(file: Path, second: str, used: bool, refused: bool) -> None:
    receivers = "[probe, probe/second]" if used else "[probe]"
    text = f"receivers:\n  probe: {{mode: segments}}\n  probe/second: {{mode: {second}}}\nexporters: {{void: }}\n"
    text += f"service: {{pipelines: {{traces: {{receivers: {receivers}, exporters: [void]}}}}}}\n"
    if refused:
        message = 'with "probe", segments would be doubled; use turns'
        assert problems(file, text) == [f"w.yaml:3: receivers.probe/second: {message}"]
    else:
        assert loaded(file, text).pipelines


def test_set_wins_over_the_file_and_makes_what_is_missing(file: Path) -> None:
    configuration = loaded(file, VALID, "receivers.probe.select.ports=[6379]", "service.telemetry.logs.level=debug")
    assert configuration.components["receiver"]["probe"].config == Probe(select=Select(ports=[6379]))
    assert configuration.telemetry.logs.level == "debug"


def test_a_wrong_value_from_set_is_reported_as_such(file: Path) -> None:
    assert problems(file, VALID, "receivers.probe.probability=2") == [
        "--set: receivers.probe.probability: 2 must be at most 1"
    ]


def test_all_problems_are_reported_at_once_in_the_order_of_the_file(file: Path) -> None:
    text = """\
receivers:
  probe:
    selekt: {ports: [1]}
    probability: often
exporters:
  sink:
    endpont: a:1
service:
  pipelines:
    traces:
      receivers: [prob]
      exporters: [sink]
"""
    assert problems(file, text) == [
        'w.yaml:3: receivers.probe.selekt: unknown key; did you mean "select"?',
        'w.yaml:4: receivers.probe.probability: "often" is not a number',
        "w.yaml:6: exporters.sink.endpoint: is required",
        'w.yaml:7: exporters.sink.endpont: unknown key; did you mean "endpoint"?',
        'w.yaml:11: service.pipelines.traces.receivers[0]: "prob" is not configured under receivers; '
        'did you mean "probe"?',
    ]


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ("{probability: 1.5}", "probability: 1.5 must be at most 1"),
        ("{probability: [1]}", "probability: [1] is not a number"),
        ("{mode: turn}", 'mode: "turn" is not one of turns, segments; did you mean "turns"?'),
        ("{select: 6379}", "select: 6379 is not a mapping"),
        ("{select: {ports: 6379}}", "select.ports: 6379 is not a list"),
        ("{select: {ports: [80, http]}}", 'select.ports[1]: "http" is not a whole number'),
        ("{select: {ports: [1.5]}}", "select.ports[0]: 1.5 is not a whole number"),
        ("{select: {port: [80]}}", 'select.port: unknown key; did you mean "ports"?'),
        ("{select: {zzz: 1}}", "select.zzz: unknown key; valid are ports"),
        ("[80]", ": [80] is not a mapping"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_expected(file: Path, settings: str, problem: str) -> None:
    assert probe_problem(file, settings) == problem


def test_a_components_own_rule_is_worded_by_the_component(file: Path) -> None:
    text = VALID.replace("{void: }", "{void: , sink: {endpoint: here}}")
    assert problems(file, text) == ['w.yaml:2: exporters.sink.endpoint: "here" has no port']


def test_text_must_be_quoted_where_it_looks_like_a_number(file: Path) -> None:
    text = VALID.replace("{void: }", "{void: , sink: {endpoint: 4317}}")
    assert problems(file, text) == ["w.yaml:2: exporters.sink.endpoint: 4317 is not text; write it in quotes"]


@pytest.mark.parametrize("secret", ["headers: {authorization: hunter2}", "password: [hunter2]"])
def test_a_likely_secret_is_not_repeated(file: Path, secret: str) -> None:
    (problem,) = problems(file, VALID.replace("{void: }", f"{{void: , sink: {{endpoint: 'a:1', {secret}}}}}"))
    assert "hunter2" not in problem
    assert "the value (not shown) is not" in problem


def test_an_unknown_type_is_refused_with_the_nearest(file: Path) -> None:
    assert problems(file, VALID.replace("{void: }", "{void: , otlp_gprc: }")) == [
        'w.yaml:2: exporters.otlp_gprc: unknown type of exporter; did you mean "otlp_grpc"?'
    ]


def test_an_unknown_type_like_no_other_is_refused_with_all_there_are(file: Path) -> None:
    assert problems(file, VALID + "processors: {zzz: }\n") == [
        "w.yaml:4: processors.zzz: unknown type of processor; there are anomaly, attributes, batch, filter, k8s_attributes, memory_limiter, redaction, resource, resource_detection"
    ]


@pytest.mark.parametrize("component_id", ["probe/", "/x", "probe/a/b", "pro be", "1probe"])
def test_an_id_is_a_type_and_perhaps_a_name(file: Path, component_id: str) -> None:
    (problem,) = problems(file, VALID.replace("{probe: }", f"{{probe: , '{component_id}': }}"))
    assert problem == f'w.yaml:1: receivers.{component_id}: "{component_id}" is not an id: "type" or "type/name"'


def test_a_deprecated_type_is_accepted_with_a_warning(file: Path) -> None:
    text = (
        "receivers: {probe: }\nexporters: {drain/x: {endpoint: 'a:1'}}\n"
        "service: {pipelines: {traces: {receivers: [probe], exporters: [drain/x]}}}\n"
    )
    configuration = loaded(file, text)
    assert configuration.components["exporter"]["drain/x"].factory.name == "sink"
    assert [str(warning) for warning in configuration.warnings] == [
        'w.yaml:2: exporters.drain/x: the type "drain" is now called "sink"; the old name will go away'
    ]


def test_a_component_in_no_pipeline_is_warned_of_and_still_checked(file: Path) -> None:
    unused = VALID.replace("{void: }", "{void: , sink: {endpoint: 'a:1'}}")
    assert [str(warning) for warning in loaded(file, unused).warnings] == [
        "w.yaml:2: exporters.sink: is in no pipeline, so it is not started"
    ]
    assert problems(file, unused.replace("endpoint", "endpont")) != []


@pytest.mark.parametrize(
    ("service", "problem"),
    [
        ("", "w.yaml:1: service.pipelines: at least one is needed"),
        ("service: {pipelines: }", "w.yaml:3: service.pipelines: null is not a mapping"),
        ("service: {pipelines: {traces: }}", "w.yaml:3: service.pipelines.traces: null is not a mapping"),
        (
            "service: {pipelines: {traces: {exporters: [void]}}}",
            "w.yaml:3: service.pipelines.traces.receivers: at least one receiver is needed",
        ),
        (
            "service: {pipelines: {traces: {receivers: [probe], exporters: []}}}",
            "w.yaml:3: service.pipelines.traces.exporters: at least one exporter is needed",
        ),
        (
            "service: {pipelines: {profiles: {receivers: [probe], exporters: [void]}}}",
            'w.yaml:3: service.pipelines.profiles: no signal "profiles"; so far there are traces, metrics, logs',
        ),
        (
            "service: {pipelines: {trace/x: {receivers: [probe], exporters: [void]}}}",
            'w.yaml:3: service.pipelines.trace/x: no signal "trace"; did you mean "traces"?',
        ),
        (
            "service: {pipelines: {traces: {receivers: [probe, probe], exporters: [void]}}}",
            'w.yaml:3: service.pipelines.traces.receivers[1]: "probe" is listed twice',
        ),
        (
            "service: {pipelines: {traces: {receivers: [probe], exporters: [void], procesors: []}}}",
            'w.yaml:3: service.pipelines.traces.procesors: unknown key; did you mean "processors"?',
        ),
    ],
)
def test_a_wrong_service_section(file: Path, service: str, problem: str) -> None:
    (found,) = problems(file, VALID.replace(SERVICE, service))
    assert found.startswith(problem)


def test_a_pipeline_is_of_the_signal_that_its_id_begins_with(file: Path) -> None:
    text = """\
receivers: {probe: , gauge: }
exporters: {dial: }
service:
  pipelines:
    traces: {receivers: [probe], exporters: [dial]}
    metrics: {receivers: [gauge], exporters: [dial]}
    metrics/slow: {receivers: [gauge], exporters: [dial]}
"""
    configuration = loaded(file, text)
    assert configuration.warnings == ()
    assert [pipeline.signal for pipeline in configuration.pipelines] == ["traces", "metrics", "metrics"]


def test_a_component_in_a_pipeline_of_a_signal_that_it_does_not_support_is_named_with_those_that_do(file: Path) -> None:
    text = """\
receivers: {probe: , gauge/a: }
processors: {filter: }
exporters: {void: , dial: }
service:
  pipelines:
    metrics:
      receivers: [probe]
      processors: [filter]
      exporters: [dial, void]
    traces/a: {receivers: [gauge/a], exporters: [void]}
"""
    assert problems(file, text) == [
        'w.yaml:7: service.pipelines.metrics.receivers[0]: "probe" does not support metrics; receivers that do: ebpf, gauge, otlp',
        'w.yaml:8: service.pipelines.metrics.processors[0]: "filter" does not support metrics; processors that do: attributes, batch, k8s_attributes, memory_limiter, redaction, resource, resource_detection',
        'w.yaml:9: service.pipelines.metrics.exporters[1]: "void" does not support metrics; '
        "exporters that do: debug, dial, file, otlp_grpc, otlp_http",
        'w.yaml:10: service.pipelines.traces/a.receivers[0]: "gauge/a" does not support traces; '
        "receivers that do: ebpf, otlp, probe",
    ]


def test_the_table_on_a_terminal_is_of_spans_alone(file: Path) -> None:
    text = "receivers: {gauge: }\nexporters: {terminal: }\n"
    text += "service: {pipelines: {metrics: {receivers: [gauge], exporters: [terminal]}}}\n"
    (problem,) = problems(file, text)
    assert '"terminal" does not support metrics; exporters that do: debug,' in problem


@pytest.mark.parametrize(
    ("telemetry", "problem"),
    [
        ("{logs: {level: chatty}}", 'logs.level: "chatty" is not one of debug, info, warn, error'),
        ("{logs: {encoding: jsn}}", 'logs.encoding: "jsn" is not one of console, json; did you mean "json"?'),
        ("{metrics: {readers: [{periodic: {interval: 1}}]}}", "metrics.readers[0].periodic.exporter: is required"),
        ("{metrics: {readers: [{pull: {}}]}}", "metrics.readers[0].pull.exporter: is required"),
        ("{metrics: {readers: [{}]}}", "metrics.readers[0]: needs periodic or pull, one of them, with its exporter"),
        ("{log: {}}", 'log: unknown key; did you mean "logs"?'),
    ],
)
def test_wrong_own_telemetry(file: Path, telemetry: str, problem: str) -> None:
    service = SERVICE.replace("}}}\n", f"}}}}, telemetry: {telemetry}}}\n")
    found = problems(file, VALID.replace(SERVICE, service))
    assert f"w.yaml:3: service.telemetry.{problem}" in found


def test_a_wrong_section_is_refused_with_the_nearest(file: Path) -> None:
    assert problems(file, VALID + "exporter: {}\n") == ['w.yaml:4: exporter: unknown key; did you mean "exporters"?']


def test_a_file_that_is_a_list_is_refused(file: Path) -> None:
    assert problems(file, "- a\n") == ['w.yaml:1: ["a"] is not a mapping']


def test_what_follows_from_a_missing_variable_is_not_reported_too(file: Path) -> None:
    text = VALID.replace("{void: }", "{void: , sink: {endpoint: '${env:NONE}'}}")
    (problem,) = problems(file, text)
    assert "NONE is not set" in problem


def test_a_broken_plug_in_is_a_problem_of_who_uses_it(file: Path) -> None:
    def broken() -> list[Factory]:
        raise RuntimeError("no such luck")

    file.write_text(VALID.replace("probe", "ebpff"), encoding="utf-8")
    with pytest.raises(ConfigurationError, match="plug-in cannot be loaded: RuntimeError: no such luck"):
        load(file, {}, (), Registry(broken))


@given(st.text(max_size=80))
def test_no_text_does_worse_than_problems(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_text("receivers:\n  probe: " + text, encoding="utf-8", errors="replace")
    with pytest.raises(ConfigurationError):
        load(file, {}, (), Registry(lambda: FACTORIES))


def test_an_unknown_type_has_no_factory() -> None:
    assert Registry(list).find("exporter", "none") is None


def test_plug_ins_are_not_read_for_a_built_in_type() -> None:
    def unexpected() -> list[Factory]:
        raise AssertionError("read")

    with pytest.raises(LoadError):
        Registry(unexpected).find("exporter", "none")
    assert Registry(unexpected).find("exporter", "debug") is not None


def test_the_registry_agrees_with_each_factory() -> None:
    for kind, types in BUILT_IN.items():
        for name in types:
            factory = Registry(list).find(kind, name)
            assert factory is not None
            assert (factory.kind, factory.name) == (kind, name)
            deprecated = {old for old, new in DEPRECATED[kind].items() if new == name}
            assert set(factory.deprecated_names) == deprecated


READY_MADE = (
    "default",
    "terminal",
    "otlp",
    "otlp_http",
    "file",
    "collector",
    "selection",
    "gateway",
    "kubernetes",
    "redaction",
)


@pytest.mark.parametrize("name", READY_MADE)
def test_each_ready_made_configuration_loads_without_a_warning(name: str) -> None:
    file = Path(__file__).parents[2] / "config" / f"{name}.yaml"
    assert load(file, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4317"}).warnings == ()


def test_every_ready_made_configuration_is_tested_above() -> None:
    folder = Path(__file__).parents[2] / "config"
    assert {file.stem for file in folder.glob("*.yaml")} == set(READY_MADE)
