"""The container and the systemd unit that a process belongs to, by the names of its control groups.

Container runtimes name a group after the container's id, 64 hexadecimal digits, in several ways::

    /docker/<id>                                     cgroupfs driver
    /kubepods/burstable/pod<uid>/<id>
    /system.slice/docker-<id>.scope                  systemd driver
    /kubepods.slice/…/cri-containerd-<id>.scope      likewise crio-<id>.scope, libpod-<id>.scope
    /…/kubepods-….slice:cri-containerd:<id>          containerd, drivers mixed up

The innermost id counts, as containers nest. ``…-conmon-<id>.scope`` holds the monitor of a container, which runs outside
of it. systemd names a group after the unit; the innermost service counts, but none around a container.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_CONTAINER = re.compile(r"(?:(?:docker|cri-containerd|crio|libpod)-)?([0-9a-f]{64})(?:\.scope)?")
_SEPARATOR = re.compile(r"[/:]")
_SERVICE = re.compile(r"([^@]+)(?:@.*)?\.service")
#: made up by systemd-run, new each time
_TRANSIENT = re.compile(r"run-(?:u\d+|r[0-9a-f]{32}|p\d+-i\d+)")
_ESCAPED = re.compile(r"\\x([0-9a-f]{2})")


@dataclass(frozen=True, slots=True)
class ControlGroup:
    """container_id: 64 hexadecimal digits. unit: name of a systemd service without ``.service`` and instance."""

    container_id: str | None
    unit: str | None


def control_group(lines: str) -> ControlGroup:
    """What the text of /proc/PID/cgroup says."""
    container_id = unit = None
    for line in lines.splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        container_id = container_id or _container(path)
        if controllers in ("", "name=systemd"):
            unit = unit or _unit(path)
    return ControlGroup(container_id, unit)


def _container(path: str) -> str | None:
    for component in reversed(_SEPARATOR.split(path)):
        found = _CONTAINER.fullmatch(component)
        if found:
            return found[1]
    return None


def _unit(path: str) -> str | None:
    for component in reversed(path.split("/")):
        if _container(component):
            return None
        found = _SERVICE.fullmatch(component)
        if found and not component.startswith("user@") and not _TRANSIENT.fullmatch(found[1]):
            return _ESCAPED.sub(lambda escape: chr(int(escape[1], 16)), found[1])
    return None
