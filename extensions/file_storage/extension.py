"""``file_storage``: keeps the sending queues of exporters in files, under the keys of the Collector's extension of that name.

Each exporter has a directory of its own, which one process at a time can use. What is stored is this agent's own format.
"""

from __future__ import annotations

import logging
import os
import re
import stat
from typing import Annotated, Final, Self

from pydantic import Field, field_validator, model_validator

from ...pipeline.component import ComponentConfig, Context, Factory, StartError
from ...pipeline.duration import Duration, within
from ...pipeline.storage import Storage, StoredQueue
from .folder import Folder, folder_name, make_directory
from .queue import FileQueue, Options

logger = logging.getLogger(__name__)

_LEAST_SIZE: Final = 4_194_304
_UNREADABLE: Final = "wirespan.storage.unreadable"
_SIZE: Final = "wirespan.storage.size"


class CompactionSettings(ComponentConfig):
    """``compaction``: the Collector's keys are taken, and have no effect: files go when their requests were sent."""

    on_start: bool = False
    on_rebound: bool = False
    directory: str | None = None
    rebound_needed_threshold_mib: int = 100
    rebound_trigger_threshold_mib: int = 10
    max_transaction_size: int = Field(default=65_536, ge=0)
    check_interval: Duration = 5.0
    cleanup_on_start: bool = False


class FileStorageSettings(ComponentConfig):
    """timeout: for which another process is waited for that still uses a queue. max_size: bytes on the disk for each exporter;
    0: any number. fsync: what is acknowledged also survives a loss of power. recreate: set aside files of another version."""

    directory: str = "/var/lib/wirespan/file_storage"
    timeout: Annotated[Duration, within("1ms", "1h", or_zero=True)] = 1.0
    max_size: int = Field(default=1_073_741_824, ge=0)
    fsync: bool = False
    create_directory: bool = False
    directory_permissions: str = "0700"
    recreate: bool = False
    compaction: CompactionSettings = CompactionSettings()

    @field_validator("directory_permissions", mode="before")
    @classmethod
    def _are_octal(cls, text: object) -> object:
        """Without quotes YAML has made another number of them."""
        if isinstance(text, str) and re.fullmatch("0?[0-7]{3}", text):
            return text
        raise ValueError('is not octal and in quotes, such as "0700"')

    @model_validator(mode="after")
    def _has_room(self) -> Self:
        if 0 < self.max_size < _LEAST_SIZE:
            raise ValueError(f"max_size {self.max_size} is less than {_LEAST_SIZE}, which a few requests take")
        return self


class FileStorage:
    def __init__(self, settings: FileStorageSettings, context: Context) -> None:
        self._settings, self._context = settings, context
        self._used: set[str] = set()

    def facts(self) -> dict[str, str]:
        return {"stores_in": self._settings.directory}

    def start(self) -> None:
        settings, path = self._settings, self._settings.directory
        if settings.create_directory:
            make_directory(path, int(settings.directory_permissions, 8))
        try:
            is_directory = stat.S_ISDIR(os.stat(path).st_mode)
        except FileNotFoundError:
            raise StartError(f"there is no directory {path}: create it, or set create_directory: true") from None
        except OSError as error:
            raise StartError(f"cannot use {path}: {error.strerror}") from error
        if not is_directory:
            raise StartError(f"{path} is no directory")

    def open_queue(self, exporter: str) -> StoredQueue:
        settings, counters = self._settings, self._context.counters
        attributes = {"exporter": exporter, "extension": self._context.id}
        name = folder_name("exporter", exporter)
        folder = Folder(settings.directory, name, settings.timeout)
        options = Options(
            settings.fsync,
            settings.max_size,
            settings.recreate,
            lambda unreadable: counters.add(_UNREADABLE, unreadable, **attributes),
        )
        try:
            queue = FileQueue(folder, options)
        except BaseException:
            folder.close()
            raise
        self._used.add(name)
        counters.gauge(_SIZE, lambda: queue.size, **attributes)
        return queue

    def ready(self) -> None:
        """Say which queues nobody sends: an exporter may have been renamed."""
        path = self._settings.directory
        for name in _names(path):
            if name.startswith("exporter_") and name not in self._used and _holds_requests(f"{path}/{name}"):
                extra = {"directory": f"{path}/{name}"}
                logger.warning("A stored queue belongs to no exporter that runs. Nobody sends it.", extra=extra)

    def not_ready(self) -> None:
        """Exporters close their queues."""

    def shutdown(self, deadline: float) -> None:
        """They have closed them."""


def _holds_requests(path: str) -> bool:
    return any(name.endswith(".queue") for name in _names(path))


def _names(path: str) -> list[str]:
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []


FACTORY = Factory("extension", "file_storage", FileStorageSettings, FileStorage, offers=(Storage,))
