"""What ``select`` says: which connections and processes are watched.

A connection is watched by its server's port, which both ends know; a process by what /proc says of it. A key that names
nothing selects all. Of an include each key must match, by any of its entries; of ``exclude`` one that matches is enough.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, NamedTuple, TypeAlias

from pydantic import AfterValidator, Field, PlainValidator, model_validator

from ..pipeline.component import ComponentConfig

_PORTS = re.compile(r"(\d{1,5})-(\d{1,5})")
_LAST_PORT = 65535
#: the largest process id there can be (PID_MAX_LIMIT of include/linux/threads.h)
_LAST_PID = 1 << 22


class PortRange(NamedTuple):
    """Both ends belong to it."""

    first: int
    last: int


def _port_range(value: Any) -> PortRange:
    """Of a port, or of text like ``8000-8999``. ValueError."""
    if isinstance(value, PortRange):
        return value
    found = _PORTS.fullmatch(value.replace(" ", "")) if isinstance(value, str) else None
    if found:
        first, last = int(found[1]), int(found[2])
    elif isinstance(value, int) and not isinstance(value, bool):
        first = last = value
    else:
        raise ValueError(f'{_shown(value)} is neither a port nor a range like "8000-8999"')
    if not 1 <= first <= last <= _LAST_PORT:
        raise ValueError(f"{_shown(value)}: ports are from 1 to {_LAST_PORT}, the lower one of a range first")
    return PortRange(first, last)


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _glob(value: str) -> str:
    """ValueError for what other tools' globs have and these do not: it would be taken literally."""
    if "{" in value:
        raise ValueError(
            f'"{value}": globs have *, ? and […], no braces; write each alternative as an entry of its own'
        )
    return value


def _path_glob(value: str) -> str:
    """ValueError for a glob that no absolute path matches."""
    if not _glob(value).startswith(("/", "*", "?", "[")):
        raise ValueError(f'"{value}" matches no path, which all begin with /; did you mean "*/{value}"?')
    return value


Glob: TypeAlias = Annotated[str, Field(min_length=1), AfterValidator(_glob)]
PathGlob: TypeAlias = Annotated[str, Field(min_length=1), AfterValidator(_path_glob)]


class Selectors(ComponentConfig):
    """ports: of servers, as the observed end sees them. cgroups: globs on the path below the root of any hierarchy; who is
    in a group below belongs to it. pids: in the host's pid namespace. executables: globs on the path of /proc/PID/exe.
    services: globs on service.name."""

    ports: tuple[Annotated[PortRange, PlainValidator(_port_range)], ...] = ()
    cgroups: tuple[PathGlob, ...] = ()
    pids: tuple[Annotated[int, Field(ge=1, le=_LAST_PID)], ...] = ()
    executables: tuple[PathGlob, ...] = ()
    services: tuple[Glob, ...] = ()

    def port_set(self) -> set[int]:
        return {port for first, last in self.ports for port in range(first, last + 1)}


class Select(Selectors):
    """Which connections and processes are watched, and which of these are not after all."""

    exclude: Selectors = Selectors()

    @model_validator(mode="after")
    def _some_port_is_left(self) -> Select:
        if not self.watched_ports():
            raise ValueError("no port is left to watch: exclude.ports has all of them")
        return self

    @property
    def every_port(self) -> bool:
        return not self.ports and not self.exclude.ports

    def watched_ports(self) -> set[int]:
        return (self.port_set() or set(range(1, _LAST_PORT + 1))) - self.exclude.port_set()


def conflict(one: Select, other: Select) -> str | None:
    """What both receivers would observe, as exchanges of their own with the same ids; None if nothing. Which processes will
    match two globs is not to be known, so only ports tell two receivers apart."""
    shared = one.watched_ports() & other.watched_ports()
    if not shared:
        return None
    which = "every port" if one.every_port and other.every_port else f"port {min(shared)}"
    return f"{which} would be observed twice; give each its own select.ports, or feed all pipelines from one receiver"
