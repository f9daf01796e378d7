"""The queue in files: what is acknowledged comes back, what is done does not, and bad luck costs what it hits."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from support import storing
from support.storing import files, killed, opened, payloads, put, request
from support.waiting import wait_until
from wirespan.extensions.file_storage import queue as queue_module
from wirespan.extensions.file_storage.folder import Folder, folder_name
from wirespan.extensions.file_storage.records import FILE_HEAD, RECORD_HEAD
from wirespan.pipeline.component import StartError
from wirespan.pipeline.storage import StorageError


def test_what_is_appended_comes_back_in_order_with_its_signal_and_items(tmp_path: Path) -> None:
    queue = opened(tmp_path)
    queue.append([request(b"a" * 5, 3, "metrics"), request(b"", 0, "logs")])
    queue.append([request(b"c" * 100_000, 7)])
    killed(queue)
    found = opened(tmp_path).entries()
    assert [(entry.signal, entry.items, entry.size) for entry in found] == [
        ("metrics", 3, 5),
        ("logs", 0, 0),
        ("traces", 7, 100_000),
    ]


def test_a_payload_is_read_as_it_was_written_now_and_by_the_next_run(tmp_path: Path) -> None:
    queue = opened(tmp_path)
    entries = put(queue, b"one", b"two")
    assert payloads(queue, entries) == [b"one", b"two"]
    killed(queue)
    assert payloads(opened(tmp_path)) == [b"one", b"two"]


def test_what_is_removed_does_not_come_back(tmp_path: Path) -> None:
    queue = opened(tmp_path)
    entries = put(queue, b"1", b"2", b"3")
    queue.remove(entries[1])
    killed(queue)
    queue = opened(tmp_path)
    assert payloads(queue) == [b"1", b"3"]


def test_a_queue_in_which_all_is_done_leaves_no_file(tmp_path: Path) -> None:
    queue = opened(tmp_path)
    for entry in put(queue, b"1", b"2"):
        queue.remove(entry)
    queue.close()
    assert files(tmp_path) == []


def test_a_file_goes_when_all_in_it_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_module, "SEGMENT_BYTES", 1000)
    queue = opened(tmp_path)
    entries = put(queue, *(bytes([i]) * 600 for i in range(6)))
    assert len(files(tmp_path)) == 3
    for entry in entries[2:4]:
        queue.remove(entry)
    assert len(files(tmp_path)) == 2
    assert queue.size == sum(path.stat().st_size for path in files(tmp_path))
    killed(queue)
    assert [payload[0] for payload in payloads(opened(tmp_path))] == [0, 1, 4, 5]


def test_a_run_does_not_write_into_the_files_of_another(tmp_path: Path) -> None:
    queue = opened(tmp_path)
    put(queue, b"first run")
    killed(queue)
    before = files(tmp_path)[0].read_bytes()
    queue = opened(tmp_path)
    put(queue, b"second run")
    assert files(tmp_path)[0].read_bytes() == before
    killed(queue)
    assert payloads(opened(tmp_path)) == [b"first run", b"second run"]


def test_files_are_their_owners_alone(tmp_path: Path) -> None:
    (tmp_path / storing.NAME).mkdir(mode=0o755)
    put(opened(tmp_path), b"secret")
    assert stat.S_IMODE((tmp_path / storing.NAME).stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / storing.NAME).iterdir()} == {0o600}


def test_a_second_process_is_refused_and_told_which_is_the_first(tmp_path: Path) -> None:
    queue = opened(tmp_path)
    with pytest.raises(
        StartError, match=rf"{storing.NAME} is in use by another process, {os.getpid()}: two agents need"
    ):
        opened(tmp_path)
    queue.close()
    opened(tmp_path).close()


def test_a_process_that_ends_in_time_is_waited_for(tmp_path: Path) -> None:
    first = Folder(str(tmp_path), "a", timeout=0.0)
    threading.Timer(0.2, first.close).start()
    Folder(str(tmp_path), "a", timeout=10.0).close()


def test_a_directory_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / storing.NAME).mkdir()
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    with pytest.raises(StartError, match=f"it belongs to user {user}"):
        opened(tmp_path)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / storing.NAME).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StartError, match="cannot use"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("component", "name"),
    [
        ("otlp_grpc", "exporter_otlp_grpc"),
        ("otlp_grpc/a.b-c", "exporter_otlp_grpc~002Fa.b-c"),
        ("otlp_grpc/../../x", "exporter_otlp_grpc~002F..~002F..~002Fx"),
        ("otlp_grpc/a~b", "exporter_otlp_grpc~002Fa~007Eb"),
    ],
)
def test_the_directory_of_an_exporter_is_named_as_the_collector_names_it(component: str, name: str) -> None:
    assert folder_name("exporter", component) == name


def test_more_than_max_size_is_refused_until_something_is_done(tmp_path: Path) -> None:
    queue = opened(tmp_path, max_size=100_000)
    entries = put(queue, *[b"x" * 5000] * 19)
    with pytest.raises(StorageError, match="has reached max_size, 100000 bytes"):
        put(queue, b"x" * 5000)
    on_disk = sum(path.stat().st_size for path in files(tmp_path))
    assert 90_000 < on_disk <= 100_000
    queue.remove(entries[0])
    queue.remove(entries[1])
    put(queue, b"x" * 5000)
    killed(queue)
    assert len(opened(tmp_path, max_size=100_000).entries()) == len(entries) - 1


def test_what_is_done_takes_no_room_of_a_full_queue(tmp_path: Path) -> None:
    queue = opened(tmp_path, max_size=10_000)
    (entry,) = put(queue, b"x" * 9000)
    queue.remove(entry)
    put(queue, b"x" * 9000)


class FullDisk:
    """Writes as much as there is room for, and fails from then on."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.write = os.pwritev

    def __call__(self, descriptor: int, buffers: Any, offset: int) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        data = b"".join(buffers)[: self.room]
        self.room -= len(data)
        return self.write(descriptor, [data], offset)


@pytest.mark.parametrize("room", [0, 10, FILE_HEAD, FILE_HEAD + 3, FILE_HEAD + RECORD_HEAD + 50])
def test_a_full_disk_refuses_a_request_and_costs_no_other(
    room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = opened(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(os, "pwritev", FullDisk(room))
        with pytest.raises(StorageError, match=f"cannot write to {tmp_path}/{storing.NAME}: No space left on device"):
            put(queue, b"a" * 100)
    put(queue, b"b" * 50)
    with monkeypatch.context() as patched:
        patched.setattr(os, "pwritev", FullDisk(room))
        with pytest.raises(StorageError):
            put(queue, b"c" * 200)
    put(queue, b"d")
    killed(queue)
    lost: list[int] = []
    assert payloads(opened(tmp_path, lost=lost)) == [b"b" * 50, b"d"]
    assert lost == []


def test_a_full_disk_gets_its_room_back_when_what_is_there_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = opened(tmp_path)
    first, second = put(queue, b"a" * 100, b"b" * 100)
    queue.remove(first)
    with monkeypatch.context() as patched:
        patched.setattr(os, "pwritev", FullDisk(0))
        with pytest.raises(StorageError):
            put(queue, b"c")
    queue.remove(second)
    assert files(tmp_path) == []
    assert queue.size == 0


def test_what_the_disk_did_not_take_is_refused_and_nothing_more_goes_into_that_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = opened(tmp_path, fsync=True)
    put(queue, b"before")
    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", lambda descriptor: (_ for _ in ()).throw(OSError(errno.EIO, "I/O error")))
        with pytest.raises(StorageError, match="I/O error"):
            put(queue, b"lost")
    put(queue, b"after")
    assert len(files(tmp_path)) == 2
    killed(queue)
    assert payloads(opened(tmp_path)) == [b"before", b"after"]


def test_threads_that_wait_for_the_disk_share_a_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = opened(tmp_path, fsync=True)
    put(queue, b"begin")
    entered, leave, calls = threading.Event(), threading.Event(), []
    sync = os.fdatasync

    def slow(descriptor: int) -> None:
        calls.append(descriptor)
        entered.set()
        leave.wait(10)
        sync(descriptor)

    monkeypatch.setattr(os, "fdatasync", slow)
    threads = [threading.Thread(target=put, args=(queue, bytes([i]))) for i in range(8)]
    threads[0].start()
    entered.wait(10)
    for thread in threads[1:]:
        thread.start()
    written = FILE_HEAD + RECORD_HEAD + len(b"begin") + 8 * (RECORD_HEAD + 1)
    wait_until("all are written", lambda: queue.size == written)
    leave.set()
    for thread in threads:
        thread.join()
    assert len(calls) == 2


def test_it_is_on_the_disk_before_append_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    queue = opened(tmp_path, fsync=True)
    put(queue, b"1")
    assert synced == [str(files(tmp_path)[0])]


def test_without_fsync_nobody_waits_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: pytest.fail("waits"))
    monkeypatch.setattr(os, "fsync", lambda descriptor: pytest.fail("waits"))
    put(opened(tmp_path), b"1")


def test_a_request_of_which_the_end_is_missing_is_not_there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    queue = opened(tmp_path)
    put(queue, b"whole", b"x" * 1000)
    killed(queue)
    (file,) = files(tmp_path)
    os.truncate(file, file.stat().st_size - 1)
    lost: list[int] = []
    assert payloads(opened(tmp_path, lost=lost)) == [b"whole"]
    assert lost == [RECORD_HEAD + 999]
    assert "The last request was not stored whole, and so not acknowledged." in caplog.text


def test_damage_of_a_payload_costs_that_request(tmp_path: Path) -> None:
    queue = opened(tmp_path)
    put(queue, b"one", b"two", b"three")
    killed(queue)
    (file,) = files(tmp_path)
    file.write_bytes(file.read_bytes().replace(b"two", b"twi"))
    lost: list[int] = []
    queue = opened(tmp_path, lost=lost)
    first, second, third = queue.entries()
    assert payloads(queue, [first, third]) == [b"one", b"three"]
    with pytest.raises(StorageError, match=r"00000001\.queue is damaged at byte 43"):
        queue.read(second)
    assert lost == [3]


def test_damage_of_a_header_costs_that_request(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    queue = opened(tmp_path)
    put(queue, b"one", b"two", b"three")
    killed(queue)
    (file,) = files(tmp_path)
    data = bytearray(file.read_bytes())
    data[FILE_HEAD + RECORD_HEAD + 3 + 10] ^= 1
    file.write_bytes(data)
    lost: list[int] = []
    assert payloads(opened(tmp_path, lost=lost)) == [b"one", b"three"]
    assert lost == [RECORD_HEAD + 3]
    assert "A part of a stored queue cannot be read. The requests in it are lost." in caplog.text


def test_a_payload_that_looks_like_a_record_is_none(tmp_path: Path) -> None:
    queue = opened(tmp_path)
    put(queue, b"first")
    killed(queue)
    stored = files(tmp_path)[0].read_bytes()
    queue = opened(tmp_path)
    put(queue, stored[FILE_HEAD:], b"behind")
    killed(queue)
    newest = files(tmp_path)[1]
    data = bytearray(newest.read_bytes())
    data[FILE_HEAD] ^= 1  # what is behind the damage is looked for
    newest.write_bytes(data)
    assert payloads(opened(tmp_path)) == [b"first", b"behind"]


def test_a_file_of_a_later_version_is_refused_and_not_touched(tmp_path: Path) -> None:
    file = file_of_version_2(tmp_path)
    before = file.read_bytes()
    with pytest.raises(
        StartError, match=r"00000001\.queue has format 2, and this version of wirespan knows 1: run the"
    ):
        opened(tmp_path)
    assert file.read_bytes() == before


def test_with_recreate_a_file_of_a_later_version_is_set_aside(tmp_path: Path) -> None:
    before = file_of_version_2(tmp_path).read_bytes()
    queue = opened(tmp_path, recreate=True)
    put(queue, b"new")
    (backup,) = (tmp_path / storing.NAME).glob("00000001.queue.*.backup")
    assert backup.read_bytes() == before
    killed(queue)
    assert payloads(opened(tmp_path)) == [b"new"]


def file_of_version_2(directory: Path) -> Path:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("wirespan.extensions.file_storage.records.FORMAT", 2)
        queue = opened(directory)
        put(queue, b"of a later version")
        killed(queue)
    return files(directory)[0]


def test_an_empty_file_and_what_is_no_file_of_a_queue_are_no_matter(tmp_path: Path) -> None:
    opened(tmp_path).close()
    (tmp_path / storing.NAME / "00000007.queue").touch()
    (tmp_path / storing.NAME / "notes.txt").write_text("keep")
    queue = opened(tmp_path)
    assert queue.entries() == []
    put(queue, b"1")
    assert [path.name for path in files(tmp_path)] == ["00000008.queue"]
    assert (tmp_path / storing.NAME / "notes.txt").read_text() == "keep"


def test_what_comes_after_the_end_is_refused_and_not_written(tmp_path: Path) -> None:
    queue = opened(tmp_path)
    (entry,) = put(queue, b"1")
    queue.close()
    queue.close()
    with pytest.raises(StorageError, match="is closed"):
        put(queue, b"2")
    with pytest.raises(StorageError, match="is closed"):
        queue.read(entry)
    queue.remove(entry)
    assert payloads(opened(tmp_path)) == [b"1"]


def test_only_files_that_are_read_are_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There may be more of them than a process may open."""
    monkeypatch.setattr(queue_module, "SEGMENT_BYTES", 100)
    queue = opened(tmp_path)
    put(queue, *[b"x" * 100] * 50)
    assert len(files(tmp_path)) == 50
    killed(queue)
    before = len(os.listdir("/proc/self/fd"))
    queue = opened(tmp_path)
    for entry in queue.entries():
        queue.read(entry)
        queue.remove(entry)
        assert len(os.listdir("/proc/self/fd")) <= before + 3


class Model(RuleBasedStateMachine):
    """Against a dictionary, whatever the order of things; killed or stopped at any moment."""

    entries = Bundle("entries")

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.run = 0
        self.next = 0
        self.there: dict[bytes, int] = {}
        self.queue = opened(Path(self.folder.name))

    @rule(target=entries, sizes=st.lists(st.integers(0, 300), min_size=1, max_size=4))
    def append(self, sizes: list[int]) -> tuple[int, Any]:
        batches = []
        for size in sizes:
            self.next += 1
            batches.append(request(self.next.to_bytes(4, "big") + b"x" * size, items=size))
        stored = self.queue.append(batches)
        self.there |= {batch.data: len(batch) for batch in batches}
        return self.run, list(zip([batch.data for batch in batches], stored, strict=True))

    @rule(appended=consumes(entries), data=st.data())
    def remove(self, appended: tuple[int, Any], data: st.DataObject) -> None:
        run, pairs = appended
        if run == self.run:
            for payload, entry in data.draw(st.permutations(pairs)):
                assert self.queue.read(entry) == payload
                self.queue.remove(entry)
                del self.there[payload]

    @rule(target=entries, stop=st.booleans())
    def begin_again(self, stop: bool) -> tuple[int, Any]:
        self.queue.close() if stop else killed(self.queue)
        self.run += 1
        lost: list[int] = []
        self.queue = opened(Path(self.folder.name), lost=lost)
        entries = self.queue.entries()
        payloads = [self.queue.read(entry) for entry in entries]
        assert list(zip(payloads, [entry.items for entry in entries], strict=True)) == list(self.there.items())
        assert lost == []
        return self.run, list(zip(payloads, entries, strict=True))

    @invariant()
    def says_what_it_takes(self) -> None:
        if hasattr(self, "queue"):
            assert self.queue.size == sum(path.stat().st_size for path in files(Path(self.folder.name)))

    def teardown(self) -> None:
        if hasattr(self, "queue"):
            self.queue.close()
            self.folder.cleanup()


def test_it_is_what_the_model_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_module, "SEGMENT_BYTES", 500)
    config = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(Model, settings=config)
