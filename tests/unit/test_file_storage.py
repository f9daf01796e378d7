"""``file_storage``: what its configuration may say, and what it says when it cannot start."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from support.storing import put
from wirespan.extensions.file_storage.extension import FACTORY, FileStorage, FileStorageSettings
from wirespan.pipeline.component import Context, StartError
from wirespan.pipeline.counters import Counters
from wirespan.pipeline.storage import Storage
from wirespan.service.config import load


def storage(counters: Counters | None = None, **settings: Any) -> FileStorage:
    config = FileStorageSettings.model_validate({"timeout": "1ms", **settings})
    return FileStorage(config, Context("file_storage/a", counters or Counters()))


def test_it_is_a_storage() -> None:
    assert isinstance(storage(), Storage)
    assert FACTORY.offers == (Storage,)


def test_a_directory_that_is_missing_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(
        StartError, match=f"there is no directory {tmp_path}/a: create it, or set create_directory: true"
    ):
        storage(directory=f"{tmp_path}/a").start()
    assert not (tmp_path / "a").exists()


def test_it_is_created_if_that_is_asked_for(tmp_path: Path) -> None:
    created = storage(directory=f"{tmp_path}/a/b", create_directory=True)
    created.start()
    created.start()
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700
    storage(directory=f"{tmp_path}/c", create_directory=True, directory_permissions="0750").start()
    assert stat.S_IMODE((tmp_path / "c").stat().st_mode) == 0o750


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(StartError, match="a is no directory"):
        storage(directory=f"{tmp_path}/a").start()
    with pytest.raises(StartError, match=f"cannot use {tmp_path}/a/b: Not a directory"):
        storage(directory=f"{tmp_path}/a/b").start()
    with pytest.raises(StartError, match=f"cannot create {tmp_path}/a/b: Not a directory"):
        storage(directory=f"{tmp_path}/a/b", create_directory=True).start()


def test_a_directory_that_cannot_be_written_to_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(path: str, mode: int) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "mkdir", refuses)
    with pytest.raises(StartError, match=f"cannot use {tmp_path}/exporter_otlp_http: Permission denied"):
        storage(directory=str(tmp_path)).open_queue("otlp_http")


def test_each_exporter_has_a_queue_of_its_own(tmp_path: Path) -> None:
    running = storage(directory=str(tmp_path))
    put(running.open_queue("otlp_http"), b"1")
    assert list(running.open_queue("otlp_http/b").entries()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["exporter_otlp_http", "exporter_otlp_http~002Fb"]


def test_what_files_take_is_a_gauge(tmp_path: Path) -> None:
    counters = Counters()
    queue = storage(counters, directory=str(tmp_path)).open_queue("otlp_http")
    put(queue, b"x" * 1000)
    attributes = (("exporter", "otlp_http"), ("extension", "file_storage/a"))
    (file,) = tmp_path.rglob("*.queue")
    assert counters.gauges() == {("wirespan.storage.size", attributes): file.stat().st_size}


def test_a_queue_that_nobody_sends_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = storage(directory=str(tmp_path))
    queue, used = first.open_queue("otlp_http/old"), first.open_queue("otlp_http")
    put(queue, b"1")
    put(used, b"1")
    first.open_queue("otlp_http/empty").close()
    queue.close()
    used.close()
    (tmp_path / "of somebody else").mkdir()
    second = storage(directory=str(tmp_path))
    second.open_queue("otlp_http")
    second.ready()
    (record,) = caplog.records
    assert record.message == "A stored queue belongs to no exporter that runs. Nobody sends it."
    assert vars(record)["directory"] == f"{tmp_path}/exporter_otlp_http~002Fold"


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"max_size": 1000}, "max_size 1000 is less than 4194304"),
        ({"max_size": -1}, "greater than or equal to 0"),
        ({"directory_permissions": 0o700}, 'is not octal and in quotes, such as "0700"'),
        ({"directory_permissions": "0888"}, "is not octal"),
        ({"directory_permissions": "7777"}, "is not octal"),
        ({"timeout": "2h"}, "must be from 1ms to 1h, or 0"),
        ({"compaction": {"on_stop": True}}, "Extra inputs are not permitted"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        FileStorageSettings.model_validate(settings)


def test_the_configuration_of_a_collector_is_taken(tmp_path: Path) -> None:
    FileStorageSettings.model_validate(
        {
            "directory": str(tmp_path),
            "timeout": "10s",
            "max_size": 268435456,
            "recreate": True,
            "fsync": False,
            "create_directory": True,
            "directory_permissions": "0750",
            "compaction": {
                "on_start": True,
                "on_rebound": True,
                "directory": "/tmp",
                "max_transaction_size": 65_536,
                "rebound_needed_threshold_mib": 100,
                "rebound_trigger_threshold_mib": 10,
                "check_interval": "5s",
                "cleanup_on_start": True,
            },
        }
    )


EARLY = """
extensions: {{file_storage: }}
receivers: {{ebpf: , otlp: {{protocols: {{grpc: }}}}}}
processors: {{batch: , memory_limiter: {{limit_mib: 100}}}}
exporters: {{otlp_http: {{sending_queue: {{{queue}}}}}}}
service:
  extensions: [file_storage]
  pipelines:
    traces: {{receivers: [{receiver}], processors: [memory_limiter, batch], exporters: [otlp_http]}}
"""


@pytest.mark.parametrize(
    ("receiver", "queue", "warned"),
    [
        ("otlp", "storage: file_storage", True),
        ("otlp", "storage: file_storage, batch: {}", True),
        ("ebpf", "storage: file_storage", False),
        ("otlp", "batch: {}", False),
    ],
)
def test_a_processor_that_answers_before_a_storage_has_what_was_sent_is_warned_of(
    receiver: str, queue: str, warned: bool, tmp_path: Path
) -> None:
    file = tmp_path / "w.yaml"
    file.write_text(EARLY.format(receiver=receiver, queue=queue))
    unused = {"otlp": "ebpf", "ebpf": "otlp"}[receiver]
    warnings = [str(warning) for warning in load(file, {}).warnings if f"receivers.{unused}" not in str(warning)]
    assert (
        warnings
        == [
            f'{file}:9: service.pipelines.traces.processors[1]: "batch" answers senders before "otlp_http" has stored what they '
            "sent; to join requests, use its sending_queue.batch instead"
        ]
        * warned
    )
