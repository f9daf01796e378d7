"""The sending queue with a storage: nothing that was taken is lost when the run ends, however it ends, and all is counted."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from sink import Answer, Sink
from support.exporting import Running, Start, refused, unavailable
from support.metric_batches import points_of
from support.waiting import wait_until
from wirespan.extensions.file_storage.extension import FileStorage, FileStorageSettings
from wirespan.pipeline.component import Context, Outcome, StartError
from wirespan.pipeline.counters import Counters
from wirespan.pipeline.encoded import EncodedBatch
from wirespan.pipeline.storage import Entry

SLOW_RETRY = {"initial_interval": "1h", "max_interval": "1h", "max_elapsed_time": 0}
DIRECTORY = "exporter_under~0020test"

StartStored = Callable[..., Running]


@pytest.fixture
def counters() -> Counters:
    """Of the storage."""
    return Counters()


@pytest.fixture
def start_stored(start: Start, tmp_path: Path, counters: Counters) -> StartStored:
    """Starts exporters one after the other, with one storage."""

    def start_one(
        protocol: str,
        endpoint: str | None = None,
        queue: dict[str, object] | None = None,
        storage: dict[str, object] | None = None,
        **settings: object,
    ) -> Running:
        config = FileStorageSettings.model_validate({"directory": str(tmp_path), "timeout": "1ms", **(storage or {})})
        extension = FileStorage(config, Context("file_storage", counters))
        extension.start()
        settings["sending_queue"] = {"storage": "file_storage", **(queue or {})}
        return start(protocol, endpoint, {"file_storage": extension}, **settings)

    return start_one


@pytest.fixture
def dead() -> str:
    """Where nobody listens."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{reserved.getsockname()[1]}"


def kill(running: Running) -> None:
    """As far as the storage can tell, its process is gone."""
    stored = running.exporter._stored
    assert stored is not None
    running.exporter._enough.set()
    stored.close()


def size_of(running: Running) -> int:
    return running.gauge("otelcol_exporter_queue_size")


def test_what_is_left_at_shutdown_is_kept_and_sent_by_the_next_run(
    protocol: str, sink: Sink, dead: str, start_stored: StartStored, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    first = start_stored(protocol, dead, retry_on_failure=SLOW_RETRY)
    for _ in range(3):
        first.consume(10)
    first.consume_metrics(5)
    wait_until("a first failure", lambda: "Will retry" in caplog.text)
    first.shutdown()
    assert first.count("send_failed_spans") == 0
    assert first.kept("spans") == 30
    assert first.kept("metric_points") == 5
    assert first.gauge("wirespan.exporter.in_flight_spans") == 0
    assert "Not all spans could be sent before shutdown. They are kept for the next start." in caplog.text
    second = start_stored(protocol)
    wait_until("all sent", lambda: second.sent(30) and second.count("sent_metric_points") == 5)
    assert second.recovered("spans") == 30
    assert second.recovered("metric_points") == 5
    assert sink.span_count == 30
    assert "Sending what was stored by the run before." in caplog.text
    second.shutdown()
    third = start_stored(protocol)
    assert third.recovered("spans") == 0


def test_what_was_sent_is_not_sent_again_after_a_kill(protocol: str, sink: Sink, start_stored: StartStored) -> None:
    first = start_stored(protocol)
    for _ in range(5):
        first.consume(10)
    wait_until("all sent", lambda: first.sent(50))
    kill(first)
    second = start_stored(protocol)
    second.consume(1)
    wait_until("the new one sent", lambda: second.sent(1))
    assert second.recovered("spans") == 0
    assert sink.span_count == 51


def test_what_was_being_sent_at_a_kill_is_sent_again(protocol: str, sink: Sink, start_stored: StartStored) -> None:
    sink.answers.append(unavailable(delay=30.0))
    first = start_stored(protocol)
    first.consume(10)
    wait_until("the first attempt", lambda: not sink.answers)
    kill(first)
    second = start_stored(protocol)
    wait_until("all sent", lambda: second.sent(10))


def test_shutdown_during_a_retry_keeps_the_request_at_once(
    protocol: str, sink: Sink, start_stored: StartStored
) -> None:
    sink.answers.append(unavailable())
    running = start_stored(protocol, retry_on_failure=SLOW_RETRY)
    running.consume(10)
    wait_until("the first attempt", lambda: not sink.answers)
    time.sleep(0.1)
    begin = time.monotonic()
    running.shutdown(7.0)
    assert time.monotonic() - begin < 1.0
    assert running.kept("spans") == 10
    assert sink.span_count == 0


def test_shutdown_is_quick_when_nobody_answers(
    protocol: str, dead: str, start_stored: StartStored, caplog: pytest.LogCaptureFixture
) -> None:
    running = start_stored(protocol, dead, retry_on_failure=SLOW_RETRY)
    running.consume(10)
    wait_until("a first failure", lambda: "Will retry" in caplog.text)
    begin = time.monotonic()
    running.shutdown(7.0)
    assert time.monotonic() - begin < 1.0


def test_shutdown_sends_what_waits_as_long_as_the_backend_takes_it(
    protocol: str, sink: Sink, start_stored: StartStored
) -> None:
    sink.answers.extend([Answer(delay=0.05)] * 10)
    running = start_stored(protocol, queue={"num_consumers": 1})
    for _ in range(10):
        running.consume(10)
    running.shutdown(7.0)
    assert running.sent(100)
    assert running.kept("spans") == 0


def test_what_the_backend_refuses_is_not_kept(protocol: str, sink: Sink, start_stored: StartStored) -> None:
    sink.answers.append(refused())
    first = start_stored(protocol)
    first.consume(10)
    wait_until("refused", lambda: first.count("send_failed_spans") == 10)
    first.shutdown()
    assert start_stored(protocol).recovered("spans") == 0


def test_payloads_are_not_in_memory_while_they_wait(dead: str, start_stored: StartStored) -> None:
    running = start_stored("otlp_http", dead, queue={"num_consumers": 1}, retry_on_failure=SLOW_RETRY)
    for _ in range(10):
        running.consume(1000)
    in_memory = [request for request in running.exporter._queue._accepted if request.payload is not None]
    assert len(in_memory) <= 1, "the one that is being sent"


def test_a_queue_that_came_back_larger_than_its_size_is_sent_and_takes_nothing_until_there_is_room(
    dead: str, sink: Sink, start_stored: StartStored, caplog: pytest.LogCaptureFixture
) -> None:
    first = start_stored("otlp_http", dead, retry_on_failure=SLOW_RETRY)
    for _ in range(10):
        first.consume(10)
    wait_until("a first failure", lambda: "Will retry" in caplog.text)
    first.shutdown()
    sink.answers.extend([unavailable(delay=1.0)] * 2)
    second = start_stored("otlp_http", queue={"queue_size": 2, "num_consumers": 1})
    second.consume(10)
    assert second.count("enqueue_failed_spans") == 10
    assert size_of(second) == 10
    wait_until("all of before sent", lambda: second.sent(100))
    second.consume(10)
    wait_until("the new one sent", lambda: second.sent(110))


def test_with_a_full_disk_senders_are_told_and_what_was_lost_is_counted(
    sink: Sink, start_stored: StartStored, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    running = start_stored("otlp_http")
    with monkeypatch.context() as patched:
        patched.setattr(os, "pwritev", fails)
        assert running.exporter.consume_encoded(points_of(5)) is Outcome.BUSY
        running.consume(10)
    assert running.count("enqueue_failed_metric_points") == 5
    assert running.count("enqueue_failed_spans") == 10
    assert size_of(running) == 0
    (record, _) = [record for record in caplog.records if "cannot be stored" in record.message]
    assert record.message == "The sending queue cannot be stored. Dropping metric points."
    assert "No space left on device" in vars(record)["error"]
    running.consume(10)
    wait_until("the next is sent", lambda: running.sent(10))


def fails(*arguments: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_max_size_of_the_storage_bounds_the_queue(dead: str, tmp_path: Path, start_stored: StartStored) -> None:
    storage = {"max_size": 4_194_304}
    running = start_stored("otlp_http", dead, storage=storage, retry_on_failure=SLOW_RETRY)
    outcomes = [running.exporter.consume_encoded(EncodedBatch("logs", b"x" * 900_000, 1)) for _ in range(6)]
    assert outcomes == [Outcome.TAKEN] * 4 + [Outcome.BUSY] * 2
    assert sum(path.stat().st_size for path in (tmp_path / DIRECTORY).iterdir()) <= 4_194_304 + 20


def test_a_damaged_request_is_counted_and_the_others_are_sent(
    protocol: str,
    dead: str,
    tmp_path: Path,
    start_stored: StartStored,
    counters: Counters,
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = start_stored(protocol, dead, retry_on_failure=SLOW_RETRY)
    for _ in range(3):
        first.consume(10)
    wait_until("a first failure", lambda: "Will retry" in caplog.text)
    first.shutdown()
    (file,) = (tmp_path / DIRECTORY).glob("*.queue")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    second = start_stored(protocol)
    wait_until("the others sent", lambda: second.sent(20))
    wait_until("one given up", lambda: second.count("send_failed_spans") == 10)
    assert second.recovered("spans") == 30
    assert "A stored request cannot be read. Dropping spans." in caplog.text
    assert [name for (name, _), amount in counters.snapshot().items() if amount] == ["wirespan.storage.unreadable"]


def test_what_cannot_be_read_for_want_of_descriptors_is_tried_again(
    sink: Sink, start_stored: StartStored, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("wirespan.exporters.request_queue._PAUSE", 0.05)
    running = start_stored("otlp_http")
    with monkeypatch.context() as patched:
        patched.setattr(os, "dup", fails_for_now)
        running.consume(10)
        wait_until("it failed", lambda: "A stored request cannot be read. Will try again." in caplog.text)
        assert running.gauge("wirespan.exporter.in_flight_spans") == 10
    wait_until("sent", lambda: running.sent(10))


def test_what_cannot_be_read_at_the_end_is_kept(
    sink: Sink, start_stored: StartStored, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    running = start_stored("otlp_http")
    with monkeypatch.context() as patched:
        patched.setattr(os, "dup", fails_for_now)
        running.consume(10)
        wait_until("it failed", lambda: "A stored request cannot be read. Will try again." in caplog.text)
        running.shutdown()
    assert running.kept("spans") == 10
    assert start_stored("otlp_http").recovered("spans") == 10


def fails_for_now(*arguments: object) -> int:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


class Defective:
    """A storage with a defect."""

    def open_queue(self, exporter: str) -> Defective:
        return self

    def entries(self) -> list[Entry]:
        return []

    def append(self, batches: Sequence[EncodedBatch]) -> list[Entry]:
        raise LookupError

    def read(self, entry: Entry) -> bytes:
        raise LookupError

    def remove(self, entry: Entry) -> None: ...

    def close(self) -> None: ...


def test_a_defect_of_a_storage_costs_what_it_hits(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    running = start("otlp_http", None, {"defective": Defective()}, sending_queue={"storage": "defective"})
    running.consume(10)
    assert running.exporter.consume_encoded(points_of(5)) is Outcome.BUSY
    assert (running.count("enqueue_failed_spans"), running.count("enqueue_failed_metric_points")) == (10, 5)
    assert size_of(running) == 0
    assert running.gauge("wirespan.exporter.in_flight_spans") == 0
    assert vars(caplog.records[0])["error"] == "the storage failed by a defect: LookupError"


def test_the_accounts_balance_over_runs(
    protocol: str, sink: Sink, start_stored: StartStored, caplog: pytest.LogCaptureFixture
) -> None:
    script = [Answer(), unavailable(), refused(), unavailable(delay=0.02)]
    sink.answers.extend(script * 20)
    kept = 0
    for _ in range(6):
        running = start_stored(protocol, queue={"num_consumers": 3, "queue_size": 30})
        assert running.recovered("spans") == kept
        for _ in range(40):
            running.consume(10)
        running.shutdown(0.3)
        kept = running.kept("spans")
        assert running.accounted() + kept == running.consumed + running.recovered("spans")


def test_a_second_exporter_on_the_same_queue_does_not_start(start_stored: StartStored) -> None:
    start_stored("otlp_http")
    with pytest.raises(StartError, match=f"in use by another process, {os.getpid()}"):
        start_stored("otlp_http")


def test_senders_wait_until_their_request_is_on_the_disk(
    sink: Sink, start_stored: StartStored, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = start_stored("otlp_http", storage={"fsync": True})
    leave = threading.Event()
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: leave.wait(10))
    answered = threading.Event()
    thread = threading.Thread(target=lambda: (running.exporter.consume_encoded(points_of(1)), answered.set()))
    thread.start()
    assert not answered.wait(0.2)
    assert not sink.request_count
    leave.set()
    assert answered.wait(10)
    thread.join()


def test_a_put_that_shutdown_overtakes_is_kept_or_refused_and_counted(
    start_stored: StartStored, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = start_stored("otlp_http", storage={"fsync": True})
    entered, leave = threading.Event(), threading.Event()
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: (entered.set(), leave.wait(10)))
    outcomes: list[Outcome] = []
    thread = threading.Thread(target=lambda: outcomes.append(running.exporter.consume_encoded(points_of(5))))
    thread.start()
    entered.wait(10)
    stopping = threading.Thread(target=running.shutdown)
    stopping.start()
    wait_until("abandoned", lambda: running.exporter._queue._abandoned)
    leave.set()
    thread.join()
    stopping.join()
    assert outcomes == [Outcome.TAKEN]
    assert running.kept("metric_points") == 5
    assert running.gauge("wirespan.exporter.in_flight_metric_points") == 0
    assert start_stored("otlp_http").recovered("metric_points") == 5


def test_without_storage_no_code_of_it_is_loaded() -> None:
    code = (
        "import sys; from wirespan.exporters import otlp_http, otlp_grpc; "
        "print(*[name for name in sys.modules if 'file_storage' in name or 'sqlite' in name])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_a_batch_is_joined_of_what_is_stored(sink: Sink, start_stored: StartStored) -> None:
    running = start_stored("otlp_http", queue={"batch": {"min_size": 50, "flush_timeout": "1h"}})
    for _ in range(5):
        running.consume(10)
    wait_until("all sent", lambda: running.sent(50))
    assert sink.request_count == 1
    running.shutdown()
    assert start_stored("otlp_http").recovered("spans") == 0


def test_what_waits_for_its_batch_survives_a_kill(dead: str, start_stored: StartStored) -> None:
    first = start_stored("otlp_http", queue={"batch": {"min_size": 50, "flush_timeout": "1h"}})
    first.consume(10)
    kill(first)
    second = start_stored("otlp_http")
    wait_until("sent", lambda: second.sent(10))
