"""The container, the pod and the systemd unit that a process belongs to, by the names of its control groups.

Container runtimes name a group after the container's id, 64 hexadecimal digits, and the kubelet the group around it after
the pod's uid, each in several ways::

    /docker/<id>                                     cgroupfs driver
    /kubepods/burstable/pod<uid>/<id>
    /system.slice/docker-<id>.scope                  systemd driver
    /kubepods.slice/…-pod<uid>.slice/cri-containerd-<id>.scope
                                                     likewise crio-<id>.scope, libpod-<id>.scope
    /…/kubepods-…-pod<uid>.slice:cri-containerd:<id> containerd, drivers mixed up

systemd's names have ``_`` for the ``-`` of a uid. The uid of a static pod is a hash, 32 digits without any.

Containers nest. In a pod the container that the kubelet knows counts, the one right below the innermost pod, whatever runs
within it; else the innermost. ``…-conmon-<id>.scope`` holds the monitor of a container, which runs outside of it. systemd names
a group after the unit; the innermost service counts, but none around a container.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

_CONTAINER = re.compile(r"(?:(?:docker|cri-containerd|crio|libpod)-)?([0-9a-f]{64})(?:\.scope)?")
_HEX = "[0-9a-f]"
_UID = f"{_HEX}{{8}}(?:[-_]{_HEX}{{4}}){{3}}[-_]{_HEX}{{12}}|{_HEX}{{32}}"
_POD = re.compile(rf"(?:[^/:]*kubepods(?:-besteffort|-burstable|-guaranteed)?-)?pod({_UID})(?:\.slice)?")
_SEPARATOR = re.compile(r"[/:]")
_SERVICE = re.compile(r"([^@]+)(?:@.*)?\.service")
#: made up by systemd-run, new each time
_TRANSIENT = re.compile(r"run-(?:u\d+|r[0-9a-f]{32}|p\d+-i\d+)")
_ESCAPED = re.compile(r"\\x([0-9a-f]{2})")


@dataclass(frozen=True, slots=True)
class ControlGroup:
    """container_id: 64 hexadecimal digits. unit: name of a systemd service without ``.service`` and instance. pod_uid: as the
    kubelet knows the pod, see above."""

    container_id: str | None
    unit: str | None
    pod_uid: str | None = None


class _Place(NamedTuple):
    """What one path says."""

    container_id: str | None
    pod_uid: str | None


def control_group(lines: str) -> ControlGroup:
    """What the text of /proc/PID/cgroup says. Of several hierarchies one that knows the pod counts, then one that knows the
    container: in some a process may not have been moved, or moved on."""
    place, unit = _Place(None, None), None
    for line in lines.splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        found = _place(path)
        if (found.pod_uid and not place.pod_uid) or not (place.pod_uid or place.container_id):
            place = found
        if controllers in ("", "name=systemd"):
            unit = unit or _unit(path)
    return ControlGroup(place.container_id, unit, place.pod_uid)


def _place(path: str) -> _Place:
    components = _SEPARATOR.split(path)
    for number in reversed(range(len(components))):
        pod = _POD.fullmatch(components[number])
        if pod:
            inside = (_CONTAINER.fullmatch(component) for component in components[number + 1 :])
            container = next((found[1] for found in inside if found), None)
            return _Place(container, pod[1].replace("_", "-"))
    return _Place(_container(path), None)


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
