"""What earlier runs left in a folder, as far as it can be read."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ...pipeline.component import StartError
from .folder import Folder
from .records import FORMAT, Damage, Record, UnknownFormat, scan
from .segment import Segment

logger = logging.getLogger(__name__)

_NAME: Final = re.compile(r"([0-9]{8,})\.queue")


@dataclass(frozen=True, slots=True)
class Found:
    """records: those that are not done."""

    segment: Segment
    records: list[Record]


@dataclass(frozen=True, slots=True)
class Recovered:
    """found: files with requests that are not done, the oldest first. last: the highest number of any file."""

    found: list[Found]
    last: int


def recover(folder: Folder, recreate: bool, unreadable: Callable[[int], None]) -> Recovered:
    """Files in which all is done are removed. Raises StartError."""
    try:
        names = [name for name in folder.names() if _NAME.fullmatch(name)]
        names.sort(key=_number)
        found = [_recover(folder, name, recreate, unreadable, newest=name == names[-1]) for name in names]
    except OSError as error:
        raise StartError(f"cannot read {folder.path}: {error.strerror}") from error
    return Recovered([each for each in found if each is not None], _number(names[-1]) if names else 0)


def _number(name: str) -> int:
    return int(name.partition(".")[0])


def _recover(
    folder: Folder, name: str, recreate: bool, unreadable: Callable[[int], None], newest: bool
) -> Found | None:
    """None if nothing in it waits. Raises OSError and StartError."""
    descriptor = folder.open(name, os.O_RDONLY)
    try:
        size = os.fstat(descriptor).st_size
        records, damages = _scanned(descriptor, size)
    except UnknownFormat as unknown:
        _set_aside(folder, name, unknown.version, recreate)
        return None
    finally:
        os.close(descriptor)
    for damage in damages:
        _report(folder, name, damage, newest)
    if damages:
        unreadable(sum(damage.bytes for damage in damages))
    if not records:
        folder.remove(name)
        return None
    return Found(Segment(_number(name), end=size, waiting=len(records)), records)


def _scanned(descriptor: int, size: int) -> tuple[list[Record], list[Damage]]:
    """Raises UnknownFormat. What the disk does not give back is damaged."""
    records: list[Record] = []
    damages: list[Damage] = []
    end = 0
    try:
        for found in scan(descriptor):
            if isinstance(found, Damage):
                damages.append(found)
                end = found.offset + found.bytes
            else:
                end = found.end
                records += [] if found.done else [found]
    except OSError:
        damages.append(Damage(end, size - end, at_end=True))
    return records, damages


def _report(folder: Folder, name: str, damage: Damage, newest: bool) -> None:
    where = {"file": f"{folder.path}/{name}", "offset": damage.offset, "bytes": damage.bytes}
    if newest and damage.at_end:
        logger.info("The last request was not stored whole, and so not acknowledged.", extra=where)
    else:
        logger.warning("A part of a stored queue cannot be read. The requests in it are lost.", extra=where)


def _set_aside(folder: Folder, name: str, version: int, recreate: bool) -> None:
    """Raises OSError and StartError."""
    if not recreate:
        raise StartError(
            f"{folder.path}/{name} has format {version}, and this version of wirespan knows {FORMAT}: run the version that "
            "wrote it until its queue is empty, move the file away, or set recreate: true"
        )
    backup = f"{name}.{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime())}.backup"
    folder.rename(name, backup)
    extra = {"directory": folder.path, "file": name, "backup": backup, "format": version}
    logger.warning("A stored queue is of another version. It is set aside, and a new one begun.", extra=extra)
