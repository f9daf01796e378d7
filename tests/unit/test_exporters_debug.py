"""The debug exporter: what a human sees, and how much of it."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from support.metric_batches import KINDS, batch, every_kind, points_of
from support.otlp_batches import batch_of
from support.waiting import wait_until
from wirespan.exporters.debug import FACTORY, DebugExporter
from wirespan.exporters.debug_format import duration, line, line_of, plain, size, span_row
from wirespan.pipeline.component import Context
from wirespan.pipeline.counters import Counters
from wirespan.pipeline.encoded import EncodedBatch
from wirespan.pipeline.spans import Fragment, FragmentColumn, FragmentTable, SpanBatch, SpanKind, StatusCode

#: A program that sends spans until it fails or has sent 1,000 batches, then says on stderr what it counted.
PROGRAM = """
import sys, time
from support.otlp_batches import batch_of
from wirespan.exporters.debug import FACTORY
from wirespan.pipeline.component import Context
from wirespan.pipeline.counters import Counters
counters = Counters()
exporter = FACTORY.create(FACTORY.config(max_lines_per_second=0), Context("debug", counters))
exporter.start()
for _ in range(int(sys.argv[1])):
    exporter.consume(batch_of(10))
exporter.shutdown(time.monotonic())
print(sum(counters.snapshot().values()), len(counters.snapshot()), file=sys.stderr)
"""

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}


@dataclass
class Started:
    exporter: DebugExporter
    counters: Counters

    def count(self, name: str) -> int:
        return self.counters.snapshot().get((f"otelcol_exporter_{name}", (("exporter", "debug"),)), 0)


def started(**settings: object) -> Started:
    counters = Counters()
    exporter = FACTORY.create(FACTORY.config.model_validate(settings), Context("debug", counters))
    exporter.start()
    return Started(exporter, counters)


def with_fragment(fragment: Fragment, **numbers: float) -> SpanBatch:
    """One span, with these parts too."""
    batch, table = batch_of(1), FragmentTable()
    batch.fragments += (FragmentColumn(table, np.array([table.intern(fragment)])),)
    batch.numbers |= {f"wirespan.{name}.duration": np.array([value]) for name, value in numbers.items()}
    return batch


def test_a_line_says_who_called_whom_for_what_and_how_it_went() -> None:
    batch = with_fragment(Fragment(None, (("http.response.status_code", 200),)), queue=1e-5, processing=0.0012)
    text = line(span_row(batch, 0), plain)
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d\.\d{3} service-0 +→ 10\.0\.0\.1:6379 +GET +200 +1\.50ms queue 10\.0µs  processing 1\.20ms  \?/5B",
        text,
    )


def test_a_server_span_points_the_other_way() -> None:
    batch = batch_of(1)
    batch.kind[:] = SpanKind.SERVER
    assert " ← 10.0.0.1:6379 " in line(span_row(batch, 0), plain)


@pytest.mark.parametrize(
    ("attributes", "status", "shown"),
    [
        ((), StatusCode.UNSET, "ok"),
        ((), StatusCode.ERROR, "error"),
        ((("error.type", "WRONGTYPE"),), StatusCode.ERROR, "WRONGTYPE"),
        ((("http.response.status_code", 503),), StatusCode.ERROR, "503"),
    ],
)
def test_the_status_is_what_the_protocol_says(
    attributes: tuple[tuple[str, int | str], ...], status: StatusCode, shown: str
) -> None:
    assert f" {shown} " in line(span_row(with_fragment(Fragment(None, attributes, status)), 0), plain)


def test_columns_are_aligned_and_long_names_clipped() -> None:
    lines = [line(span_row(batch_of(1, name=name), 0), plain) for name in ("GET", "G" * 100)]
    assert len({text.index("1.50ms") for text in lines}) == 1
    assert "GGG…" in lines[1]


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        (130, r"[\d:.]{12} service-0 +→ 10\.0\.0\.1:6379 +GET +200 +1\.50ms queue 10\.0µs  processing 1\.20ms  \?/5B"),
        (79, r"service-0 +→ 10\.0\.0\.1:6379 +GET +200 +1\.50ms"),
        (59, r"service-0 +→ GET +200 +1\.50ms"),
        (41, r"service-0 +→ GET +200 +1\.50ms"),
    ],
)
def test_on_a_narrow_terminal_a_line_says_how_it_went_before_when_and_with_whom(columns: int, shown: str) -> None:
    batch = with_fragment(Fragment(None, (("http.response.status_code", 200),)), queue=1e-5, processing=0.0012)
    text = line_of(columns, span_row(batch, 0), plain)
    assert re.fullmatch(shown, text)
    assert len(text) <= columns


def test_on_a_narrow_terminal_names_have_the_room_that_is_left() -> None:
    span = span_row(batch_of(1, name="G" * 100), 0)
    for columns in range(41, 79):
        assert len(line_of(columns, span, plain)) == columns


def test_what_could_steer_a_terminal_is_replaced() -> None:
    text = line(span_row(batch_of(1, name="\x1b[2J\nGET\udc80"), 0), plain)
    assert text.isprintable()
    text.encode()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((0, "0ns"), (8.5e-7, "850ns"), (1.23e-5, "12.3µs"), (9.9996e-4, "1.00ms"), (0.25, "250ms")),
        *((2, "2.00s"), (65, "1m05s"), (119.7, "2m00s")),
    ],
)
def test_durations_have_three_digits_and_the_unit_that_fits(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0B"), (1023, "1023B"), (1536, "1.50KiB"), (10**9, "954MiB")])
def test_sizes_have_the_unit_that_fits(count: int, text: str) -> None:
    assert size(count) == text


def test_normal_is_a_line_a_span(capsys: pytest.CaptureFixture[str]) -> None:
    running = started()
    running.exporter.consume(batch_of(3))
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert running.count("sent_spans") == 3


def test_basic_is_a_line_a_batch(capsys: pytest.CaptureFixture[str]) -> None:
    started(verbosity="basic").exporter.consume(batch_of(30, resources=2))
    (text,) = capsys.readouterr().out.splitlines()
    assert text.endswith("spans: 30, resources: 2")


def test_detailed_shows_ids_resource_and_every_attribute(capsys: pytest.CaptureFixture[str]) -> None:
    started(verbosity="detailed").exporter.consume(batch_of(1))
    text = capsys.readouterr().out
    for expected in ("span_id: 0000000000000001", "resource service.name: service-0", "wirespan.response.size: 5"):
        assert f"    {expected}\n" in text


def test_beyond_the_limit_only_the_number_is_shown_a_second_later(capsys: pytest.CaptureFixture[str]) -> None:
    running = started(max_lines_per_second=5)
    for _ in range(10):
        running.exporter.consume(batch_of(4))
    shown: list[str] = []
    wait_until("a summary", lambda: shown.extend(capsys.readouterr().out.splitlines()) or "… 35 more spans" in shown)
    assert len(shown) == 6
    assert running.count("sent_spans") == 40
    running.exporter.shutdown(time.monotonic())


def test_the_limit_is_for_each_second(capsys: pytest.CaptureFixture[str]) -> None:
    running = started(max_lines_per_second=5)
    running.exporter.consume(batch_of(5))
    time.sleep(1.01)
    running.exporter.consume(batch_of(5))
    assert len(capsys.readouterr().out.splitlines()) == 10


def test_shutdown_shows_the_number_that_is_still_due(capsys: pytest.CaptureFixture[str]) -> None:
    running = started(max_lines_per_second=1)
    running.exporter.consume(batch_of(4))
    running.exporter.shutdown(time.monotonic())
    assert capsys.readouterr().out.splitlines()[1:] == ["… 3 more spans"]


def test_without_a_limit_all_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    started(max_lines_per_second=0).exporter.consume(batch_of(1000))
    assert len(capsys.readouterr().out.splitlines()) == 1000


def test_a_reader_that_goes_away_is_no_traceback_and_the_rest_is_counted() -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "1000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
        text=True,
    )
    assert program.stdout is not None
    assert program.stderr is not None
    program.stdout.readline()
    program.stdout.close()
    errors = program.stderr.read()
    assert program.wait() == 0
    assert "Traceback" not in errors
    assert errors.splitlines() == ["Nobody reads stdout any more. Dropping data.", "10000 2"]


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_a_terminal_gets_colours_unless_told_not_to(no_color: str, coloured: bool) -> None:
    terminal, ours = pty.openpty()
    environment = {**ENVIRONMENT, "NO_COLOR": no_color}
    subprocess.run(
        [sys.executable, "-c", PROGRAM, "1"], stdout=ours, stderr=subprocess.PIPE, env=environment, check=True
    )
    text = os.read(terminal, 4096)
    os.close(terminal)
    os.close(ours)
    assert b"service-0" in text
    assert (b"\x1b[" in text) is coloured


def shown(capsys: pytest.CaptureFixture[str], metrics: EncodedBatch, **settings: object) -> list[str]:
    """The lines of a batch of metrics."""
    exporter = started(**settings)
    exporter.exporter.consume_encoded(metrics)
    assert exporter.count("sent_metric_points") == len(metrics)
    return capsys.readouterr().out.splitlines()


def test_a_batch_of_metrics_is_a_line_of_counts_when_basic(capsys: pytest.CaptureFixture[str]) -> None:
    (text,) = shown(capsys, batch(every_kind()), verbosity="basic")
    assert re.fullmatch(rf"\d\d:\d\d:\d\d\.\d{{3}} metrics: 6, data points: {KINDS}, resources: 2", text)


def test_each_point_is_a_line_with_its_service_attributes_and_value(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, batch(every_kind()))
    assert all(re.match(r"\d\d:\d\d:\d\d\.123 ", text) for text in lines)
    address = "server.address=täglich"
    everything = (
        f"{address},server.port=6379,quota=0.25,sampled=False,key=b'\\x00\\xff',tags=['ü', -1],peer={{'name': 'redis'}}"
    )
    assert [text[13:] for text in lines] == [
        f"日本               quota.left{{{everything}}} -1.5",
        f"日本               moved{{}} {-(2**62)} By",
        "日本               moved{} 0 By",
        "日本               exchanges{} inf {exchange}",
        f"日本               http.server.request.duration{{{address}}} count={2**60} sum=12.5 min=0.001 max=0.009 "
        f"le0.005=3 le0.01={2**60 - 3} leinf=0",
        f"shop             wirespan.exchange.duration{{{address},server.port=6379}} count=9 sum=4.75 min=-1.2 max=2",
        "shop             latency{} count=4 sum=2 q0.99=0.75",
    ]


def test_all_of_a_point_is_below_its_line_when_detailed(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, batch(every_kind()), verbosity="detailed")
    begin = next(at for at, text in enumerate(lines) if "wirespan.exchange.duration" in text)
    described = [text.strip() for text in lines[begin + 1 : begin + 15]]
    start = described.pop(2)
    assert re.fullmatch(r"start: \d\d:\d\d:\d\d\.000", start)
    assert described == [
        "unit: s",
        "type: exponential histogram, cumulative",
        "resource service.name: shop",
        "server.address: täglich",
        "server.port: 6379",
        "scale: 3",
        f"bucket [{-(2 ** (2 / 8)):g}, {-(2 ** (1 / 8)):g}): 2",
        "bucket [-1e-09, 1e-09]: 1",
        f"bucket ({2**-3:g}, {2 ** (-23 / 8):g}]: 1",
        f"bucket ({2 ** (-22 / 8):g}, {2 ** (-21 / 8):g}]: 5",
        "exemplar: 0.0123 trace_id=000102030405060708090a0b0c0d0e0f span_id=c8c9cacbcccdcecf url.path=/items/17",
        "exemplar: 1",
        lines[begin + 14].strip(),
    ]
    assert "    type: sum, monotonic, cumulative" in lines
    assert "    type: sum, delta" in lines
    assert "    description: Bytes, and some more." in lines


def test_points_beyond_the_limit_are_summed_up_beside_the_spans(capsys: pytest.CaptureFixture[str]) -> None:
    exporter = started(max_lines_per_second=3)
    exporter.exporter.consume(batch_of(2))
    exporter.exporter.consume_encoded(points_of(5))
    exporter.exporter.consume(batch_of(2))
    exporter.exporter.shutdown(time.monotonic())
    assert capsys.readouterr().out.splitlines()[3:] == ["… 4 more metric points", "… 2 more spans"]
    assert (exporter.count("sent_spans"), exporter.count("sent_metric_points")) == (4, 5)


def test_a_point_cannot_steer_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    request = every_kind()
    request.resource_metrics[1].scope_metrics[0].metrics[1].name = "\x1b[2J\n"
    request.resource_metrics[1].resource.attributes[0].value.string_value = "\x1b]0;\a"
    for verbosity in ("normal", "detailed"):
        assert all(text.isprintable() for text in shown(capsys, batch(request), verbosity=verbosity))


def test_buckets_of_any_scale_have_bounds(capsys: pytest.CaptureFixture[str]) -> None:
    request = every_kind()
    point = request.resource_metrics[1].scope_metrics[0].metrics[0].exponential_histogram.data_points[0]
    for scale in (-(2**31), -10, 20, 2**31 - 1):
        point.scale, point.positive.offset = scale, 2**31 - 5
        assert any("bucket (" in text for text in shown(capsys, batch(request), verbosity="detailed"))


def test_metrics_that_are_none_are_counted_and_said(caplog: pytest.LogCaptureFixture) -> None:
    exporter = started()
    exporter.exporter.consume_encoded(EncodedBatch("metrics", b"\xff" * 20, 3))
    assert exporter.count("send_failed_metric_points") == 3
    assert "Cannot decode a request. Dropping it." in caplog.text
