"""``wirespan score``: recordings of any SDK, in each encoding, with what is found written into them."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from google.protobuf.json_format import MessageToDict, ParseDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from support.traffic import Recording, record
from wirespan.service.cli import main

TRAIN, TEST = record(1500, 1), record(600, 2, share=0.05, severity=10)


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("train") / "normal.jsonl"
    path.write_text(TRAIN.text)
    return path


def score(test: Path | str, train: Path | str, *more: Path | str) -> Result:
    return CliRunner().invoke(main, ["score", str(test), "--train", str(train), *map(str, more)])


def scores_of(csv: Path) -> dict[str, float]:
    head, *lines = csv.read_text().splitlines()
    assert head == "trace_id,score"
    return {trace: float(found) for trace, found in (line.split(",") for line in lines)}


def spans_of(text: str) -> list[dict[str, Any]]:
    requests = [json.loads(line) for line in text.splitlines()]
    return [s for r in requests for rs in r.get("resourceSpans", ()) for ss in rs["scopeSpans"] for s in ss["spans"]]


def attributes(span: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {a["key"]: next(iter(a["value"].values())) for a in span.get("attributes", ())}
    return found


def message(line: str) -> bytes:
    """A request of OTLP JSON in protobuf, whose JSON has ids in base64."""
    request = json.loads(line)
    for resource in request["resourceSpans"]:
        for span in resource["scopeSpans"][0]["spans"]:
            for name in ("traceId", "spanId", "parentSpanId"):
                span[name] = base64.b64encode(bytes.fromhex(span[name])).decode()
    return ParseDict(request, ExportTraceServiceRequest()).SerializeToString()


def separation(found: dict[str, float], recording: Recording) -> float:
    """How likely a faulty trace's score is above a normal one's."""
    faulty = np.array([s for trace, s in found.items() if trace in recording.faults])
    normal = np.array([s for trace, s in found.items() if trace not in recording.faults])
    return float(np.mean(faulty[:, None] > normal))


def test_faulty_traces_are_above_normal_ones_and_spans_say_why(train: Path, tmp_path: Path) -> None:
    test, out, csv = tmp_path / "test.jsonl", tmp_path / "out.jsonl", tmp_path / "scores.csv"
    test.write_text(TEST.text)
    result = score(test, train, "--output", out, "--traces", csv)
    assert result.exit_code == 0, result.output
    found = scores_of(csv)
    assert set(found) == {trace[0]["traceId"] for trace in TEST.traces}
    assert separation(found, TEST) > 0.97
    marked, before = spans_of(out.read_text()), spans_of(TEST.text)
    for span, original in zip(marked, before, strict=True):
        said = {key: value for key, value in attributes(span).items() if key.startswith("wirespan.anomaly")}
        rest = [a for a in span["attributes"] if not a["key"].startswith("wirespan.anomaly")]
        assert {**span, "attributes": rest} == original
        if "wirespan.anomaly.state" in said:
            assert said == {"wirespan.anomaly.state": "learning"}
            continue
        assert 0 <= said["wirespan.anomaly.score"] < 1
        assert said["wirespan.anomaly"] == (said["wirespan.anomaly.score"] >= 0.999)
        assert ("wirespan.anomaly.drivers" in said) == said["wirespan.anomaly"]
    words = {attributes(span).get("wirespan.anomaly.drivers", "") for span in marked}
    assert any("missing call" in said for said in words)
    assert any("own time" in said and " ms, usually " in said for said in words)
    assert "shop" in result.output
    assert "SERVICE" in result.output


def test_every_encoding_says_the_same(train: Path, tmp_path: Path) -> None:
    messages = [message(line) for line in TEST.lines]
    framed = b"".join(len(message).to_bytes(4, "big") + message for message in messages)
    found = []
    for name, content in (("json", TEST.text.encode()), ("framed", framed), ("whole", b"".join(messages))):
        (tmp_path / name).write_bytes(content)
        result = score(
            tmp_path / name, train, "--output", tmp_path / f"{name}.out", "--traces", tmp_path / f"{name}.csv"
        )
        assert result.exit_code == 0, result.output
        found.append(scores_of(tmp_path / f"{name}.csv"))
    assert found[0] == found[1] == found[2]
    whole = ExportTraceServiceRequest.FromString((tmp_path / "whole.out").read_bytes())
    again, at = [], 0
    data = (tmp_path / "framed.out").read_bytes()
    while at < len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "big")
        again += ExportTraceServiceRequest.FromString(data[at + 4 : end]).resource_spans
        at = end
    assert list(whole.resource_spans) == again
    scored = [a["key"] for a in _all_attributes(MessageToDict(whole))]
    assert scored.count("wirespan.anomaly.score") + scored.count("wirespan.anomaly.state") == len(spans_of(TEST.text))


def _all_attributes(request: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        a for rs in request["resourceSpans"] for ss in rs["scopeSpans"] for s in ss["spans"] for a in s["attributes"]
    ]


def test_spans_of_a_trace_may_stand_in_several_files(train: Path, tmp_path: Path) -> None:
    lines = [json.dumps({"resourceSpans": [rs]}) for line in TEST.lines for rs in json.loads(line)["resourceSpans"]]
    for number in range(3):
        (tmp_path / f"{number}.part").write_text("\n".join(lines[number::3]))
    whole, csv = tmp_path / "whole", tmp_path / "csv"
    whole.write_text(TEST.text)
    assert score(whole, train, "--traces", csv).exit_code == 0
    expected = scores_of(csv)
    assert score(str(tmp_path / "*.part"), train, "--traces", csv).exit_code == 0
    assert scores_of(csv) == expected


def test_without_kinds_ports_or_protocols_it_works(train: Path, tmp_path: Path) -> None:
    def bare(recording: Recording) -> str:
        spans = [json.loads(line) for line in recording.lines]
        for span in (s for r in spans for rs in r["resourceSpans"] for ss in rs["scopeSpans"] for s in ss["spans"]):
            span["traceId"] = span["traceId"][16:]
            del span["kind"], span["attributes"]
        return "".join(json.dumps(r) + "\n" for r in spans)

    (tmp_path / "train").write_text(bare(TRAIN))
    (tmp_path / "test").write_text(bare(TEST))
    result = score(tmp_path / "test", tmp_path / "train", "--traces", tmp_path / "csv")
    assert result.exit_code == 0, result.output
    short = Recording(faults={trace[16:]: kind for trace, kind in TEST.faults.items()})
    found = scores_of(tmp_path / "csv")
    assert {len(trace) for trace in found} == {16}
    assert separation(found, short) > 0.95


def test_what_is_no_request_of_spans_is_copied_and_told(train: Path, tmp_path: Path) -> None:
    odd = [
        "not json",
        '{"resourceMetrics":[]}',
        '{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"xyz","spanId":"1"}]}]}]}',
        "[]",
        "",
    ]
    nothing = '{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"01","spanId":"01","endTimeUnixNano":"-5"}]}]}]}'
    test, out = tmp_path / "test", tmp_path / "out"
    test.write_text("\n".join([TEST.lines[0], *odd, nothing, TEST.lines[1]]) + "\n")
    result = score(test, train, "--output", out)
    assert result.exit_code == 0, result.output
    assert out.read_text().splitlines()[1:6] == odd
    assert "3 requests could not be read" in result.output
    assert "wirespan.anomaly.state" in out.read_text().splitlines()[6]


@pytest.mark.parametrize(
    "value",
    [
        {"stringValue": "long"},
        {"arrayValue": {}},
        {"boolValue": True},
        {"intValue": "9" * 400},
        {"doubleValue": "NaN"},
        {},
    ],
)
def test_an_attribute_of_any_value_is_no_reason_to_fail(train: Path, tmp_path: Path, value: dict[str, Any]) -> None:
    request = json.loads(TEST.lines[0])
    names = ("wirespan.queue.duration", "wirespan.request.size", "http.response.status_code", "server.port")
    for resource in request["resourceSpans"]:
        for span in resource["scopeSpans"][0]["spans"]:
            span["attributes"] += [{"key": name, "value": value} for name in names]
            span["parentSpanId"] = "-1"
    (tmp_path / "test").write_text(json.dumps(request))
    result = score(tmp_path / "test", train, "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "could not be read" not in result.output


def test_the_same_seed_gives_the_same_scores(train: Path, tmp_path: Path) -> None:
    (tmp_path / "test").write_text(TEST.text)
    for name in ("a", "b"):
        assert score(tmp_path / "test", train, "--traces", tmp_path / name, "--seed", "5").exit_code == 0
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_what_was_scored_before_is_scored_anew(train: Path, tmp_path: Path) -> None:
    test, out, again = tmp_path / "test", tmp_path / "out", tmp_path / "again"
    test.write_text(TEST.text)
    assert score(test, train, "--output", out).exit_code == 0
    assert score(out, train, "--output", again).exit_code == 0
    assert out.read_text() == again.read_text()


@pytest.mark.parametrize(
    ("test", "training", "said"),
    [
        ("nothing*.jsonl", TRAIN.text, "nothing*.jsonl: there is no such file"),
        ("empty", TRAIN.text, "there are no spans in it"),
        ("test", "", "there are no spans to learn from"),
        ("test", TRAIN.lines[0], "are too few to learn from"),
    ],
)
def test_what_cannot_be_scored_is_said(test: str, training: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("")
    (tmp_path / "test").write_text(TEST.text)
    (tmp_path / "train").write_text(training)
    result = score(tmp_path / test, tmp_path / "train")
    assert result.exit_code == 1
    assert said in result.output


def test_what_is_read_is_not_overwritten(train: Path, tmp_path: Path) -> None:
    (tmp_path / "test").write_text(TEST.text)
    result = score(tmp_path / "test", train, "--output", tmp_path / "test")
    assert result.exit_code == 1
    assert "cannot be written as well" in result.output
    assert (tmp_path / "test").read_text() == TEST.text


def test_only_a_forest_needs_scikit_learn(train: Path, tmp_path: Path) -> None:
    (tmp_path / "test").write_text(TEST.lines[0])
    program = "import sys; from wirespan.service.cli import main; main(sys.argv[1:], standalone_mode=False); print('sklearn' in sys.modules)"
    command = [
        sys.executable,
        "-c",
        program,
        "score",
        str(tmp_path / "test"),
        "--train",
        str(train),
        "--detector",
        "tails",
    ]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.endswith("False\n")
