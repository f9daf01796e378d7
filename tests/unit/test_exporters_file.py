"""The file exporter: complete lines, appended, private, and honest about what it could not write."""

from __future__ import annotations

import json
import os
import resource
import signal
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydantic import ValidationError

from support.metric_batches import KINDS, SPAN_ID, TRACE_ID, batch, every_kind, points_of
from support.metrics import read_metrics
from support.otlp_batches import batch_of
from support.spans import read_file
from wirespan.exporters.file import FACTORY, FileExporter
from wirespan.pipeline.component import Context, StartError
from wirespan.pipeline.counters import Counters
from wirespan.pipeline.encoded import EncodedBatch


class Started:
    def __init__(self, path: Path) -> None:
        self.counters = Counters()
        self.exporter: FileExporter = FACTORY.create(FACTORY.config(path=str(path)), Context("file", self.counters))
        self.exporter.start()

    def count(self, name: str) -> int:
        return self.counters.snapshot().get((f"otelcol_exporter_{name}", (("exporter", "file"),)), 0)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """As if the disk were full after ``size`` bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_each_batch_is_a_line_that_is_there_at_once(tmp_path: Path) -> None:
    started = Started(tmp_path / "spans.jsonl")
    for batches in (1, 2):
        started.exporter.consume(batch_of(3))
        assert len((tmp_path / "spans.jsonl").read_text().splitlines()) == batches
    assert len(read_file(tmp_path / "spans.jsonl")) == 6
    assert started.count("sent_spans") == 6


def test_an_empty_batch_writes_nothing(tmp_path: Path) -> None:
    started = Started(tmp_path / "spans.jsonl")
    started.exporter.consume(batch_of(0))
    assert (tmp_path / "spans.jsonl").read_text() == ""


def test_a_new_file_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    Started(tmp_path / "spans.jsonl")
    assert stat.S_IMODE(os.stat(tmp_path / "spans.jsonl").st_mode) == 0o600


@pytest.mark.parametrize(("mode", "warnings"), [(0o600, 0), (0o640, 1), (0o602, 1)])
def test_a_file_that_is_there_keeps_its_mode_with_a_warning_if_others_have_access(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, warnings: int
) -> None:
    path = tmp_path / "spans.jsonl"
    path.touch()
    path.chmod(mode)
    Started(path)
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert [record.levelname for record in caplog.records] == ["WARNING"] * warnings


def test_a_device_is_no_file_that_others_read(caplog: pytest.LogCaptureFixture) -> None:
    Started(Path("/dev/null"))
    assert not caplog.records


def test_what_was_in_the_file_stays(tmp_path: Path) -> None:
    for _ in range(2):
        started = Started(tmp_path / "spans.jsonl")
        started.exporter.consume(batch_of(1))
        started.exporter.shutdown(time.monotonic())
    assert len(read_file(tmp_path / "spans.jsonl")) == 2


@pytest.mark.parametrize("path", ["missing/spans.jsonl", "."])
def test_a_path_that_cannot_be_written_is_said_at_start(tmp_path: Path, path: str) -> None:
    with pytest.raises(StartError, match=r"cannot write .*(No such file|directory)"):
        Started(tmp_path / path)


def test_a_full_disk_is_counted_and_leaves_no_half_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "spans.jsonl"
    started = Started(path)
    started.exporter.consume(batch_of(1))
    with largest_file(path.stat().st_size + 100):
        started.exporter.consume(batch_of(50))
        started.exporter.consume(batch_of(50))
    started.exporter.consume(batch_of(2))
    assert (started.count("sent_spans"), started.count("send_failed_spans")) == (3, 100)
    assert [len(json.loads(line)["resourceSpans"]) for line in path.read_text().splitlines()] == [1, 1]
    assert len([record for record in caplog.records if "Cannot write" in record.message]) == 1


def test_a_pipe_whose_reader_is_gone_is_counted(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    started = Started(tmp_path / "pipe")
    started.exporter.consume(batch_of(1))
    os.close(reader)
    started.exporter.consume(batch_of(1))
    assert (started.count("sent_spans"), started.count("send_failed_spans")) == (1, 1)


def test_after_shutdown_spans_are_counted_as_failed(tmp_path: Path) -> None:
    started = Started(tmp_path / "spans.jsonl")
    for _ in range(2):
        started.exporter.shutdown(time.monotonic())
    started.exporter.consume(batch_of(4))
    assert started.count("send_failed_spans") == 4


def test_an_empty_path_is_refused() -> None:
    with pytest.raises(ValidationError):
        FACTORY.config(path="")


def test_metrics_are_a_line_a_request_that_reads_as_the_same_message(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    started, request = Started(path), every_kind()
    for lines in (1, 2):
        started.exporter.consume_encoded(batch(request))
        assert read_metrics(path) == [request] * lines
    assert started.count("sent_metric_points") == 2 * KINDS


def test_ids_of_exemplars_are_hex_enums_are_numbers_and_long_integers_are_text(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    Started(path).exporter.consume_encoded(batch(every_kind()))
    first, second = json.loads(path.read_text())["resourceMetrics"]
    *_, cumulative, histogram = first["scopeMetrics"][0]["metrics"]
    assert cumulative["sum"]["aggregationTemporality"] == 2
    (point,) = histogram["histogram"]["dataPoints"]
    assert point["count"] == str(2**60)
    assert point["exemplars"][0]["traceId"] == TRACE_ID.hex()
    assert point["exemplars"][0]["spanId"] == SPAN_ID.hex()
    (exponential, *_) = second["scopeMetrics"][0]["metrics"]
    assert exponential["exponentialHistogram"]["dataPoints"][0]["positive"] == {
        "offset": -24,
        "bucketCounts": ["1", "0", "5"],
    }


def test_spans_and_metrics_of_one_file_are_lines_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "both.jsonl"
    started = Started(path)
    started.exporter.consume(batch_of(2))
    started.exporter.consume_encoded(points_of(3))
    assert [list(json.loads(line)) for line in path.read_text().splitlines()] == [
        ["resourceSpans"],
        ["resourceMetrics"],
    ]
    assert (started.count("sent_spans"), started.count("sent_metric_points")) == (2, 3)


def test_metrics_on_a_full_disk_are_counted_and_leave_no_half_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "metrics.jsonl"
    started = Started(path)
    started.exporter.consume_encoded(points_of(1))
    with largest_file(path.stat().st_size + 100):
        started.exporter.consume_encoded(points_of(50))
    started.exporter.consume_encoded(points_of(2))
    assert (started.count("sent_metric_points"), started.count("send_failed_metric_points")) == (3, 50)
    assert len(read_metrics(path)) == 2
    (record,) = caplog.records
    assert record.message == "Cannot write metric points to the file. Dropping them."


def test_what_is_no_request_is_counted_as_failed_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    started = Started(tmp_path / "metrics.jsonl")
    started.exporter.consume_encoded(EncodedBatch("metrics", b"\xff" * 20, 3))
    assert started.count("send_failed_metric_points") == 3
    assert (tmp_path / "metrics.jsonl").read_text() == ""
    assert "Cannot decode a request. Dropping it." in caplog.text


def test_after_shutdown_points_are_counted_as_failed(tmp_path: Path) -> None:
    started = Started(tmp_path / "metrics.jsonl")
    started.exporter.shutdown(time.monotonic())
    started.exporter.consume_encoded(points_of(4))
    assert started.count("send_failed_metric_points") == 4
