"""The container and the systemd unit of a process, from the paths of its control groups.

Runtimes name a container's group by its id of 64 hexadecimal digits, alone (``/docker/<id>``, ``/kubepods/…/<id>``)
or with a prefix (``docker-<id>.scope``, ``cri-containerd-<id>.scope``, ``crio-<id>.scope``, ``libpod-<id>.scope``, and
``…slice:cri-containerd:<id>`` where the runtime and the node disagree about systemd). Of nested containers the
innermost counts. A unit is the innermost service in systemd's own hierarchy, and inside a container only one that the
container itself runs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_CONTAINER = re.compile(r"(?:.*[-:])?([0-9a-f]{64})(?:\.scope)?")
#: conmon watches a container from the outside, in a group of its own
_MONITOR = "conmon"
#: the hierarchies that systemd keeps: its own (cgroup v1) and the unified one (v2, which has no name)
_SYSTEMD = ("name=systemd", "")
#: not what runs but who runs it (user@1000.service), and names that systemd-run made up
_NO_SERVICE = re.compile(r"user@\d+|run-(?:u\d+|r[0-9a-f]{32}|p\d+-i\d+)")
_ESCAPE = re.compile(r"\\x([0-9a-f]{2})")


@dataclass(frozen=True, slots=True)
class ControlGroup:
    """container_id: 64 hexadecimal digits. unit: a service without ``.service`` and without its instance, ``getty``
    of ``getty@tty1.service``. Both None where there is none."""

    container_id: str | None
    unit: str | None


def control_group(lines: str) -> ControlGroup:
    """What /proc/PID/cgroup tells; its lines are ``hierarchy:controllers:path``."""
    container_id = unit = None
    for line in lines.splitlines():
        _, _, controllers_and_path = line.partition(":")
        controllers, _, path = controllers_and_path.partition(":")
        components = path.split("/")
        at = _container_component(components)
        if at is not None and container_id is None:
            match = _CONTAINER.fullmatch(components[at])
            container_id = match and match[1]
        if controllers in _SYSTEMD and unit is None:
            unit = _unit(components[0 if at is None else at + 1 :])
    return ControlGroup(container_id, unit)


def _container_component(components: Sequence[str]) -> int | None:
    for at in reversed(range(len(components))):
        if _CONTAINER.fullmatch(components[at]) and _MONITOR not in components[at]:
            return at
    return None


def _unit(components: Sequence[str]) -> str | None:
    for component in reversed(components):
        service = component.removesuffix(".service")
        if service != component and not _NO_SERVICE.fullmatch(service):
            return _unescaped(service.partition("@")[0])
    return None


def _unescaped(unit: str) -> str:
    """As systemd-escape(1) --unescape, for the bytes that it writes as ``\\xNN``."""
    return _ESCAPE.sub(lambda escape: chr(int(escape[1], 16)), unit)
