"""Processes to resources: who sent or served an exchange, looked up once a program image.

The kernel names an image by (thread group, its start time, number of its execs) and adds its comm. /proc knows the
process as it is now, so what is read there counts only if it is of the same image:

* The start times must agree, or the number belongs to another process by now. /proc has clock ticks of 10 ms, in which
  a number is not used twice: it would take a round through all of them.
* /proc does not show how often a process called exec. Its comm must be the one that the kernel saw, or what exec makes
  of the present image's path, which covers programs that rename themselves. So an image that ran another program
  meanwhile is noticed unless both have the same name, like a server that executes itself anew; what then differs is
  taken from the new image.

What cannot be looked up is known by its comm alone, and counted. That is final for the image, and kept; only after
an error of the system itself is the next exchange looked up again. ``service.name`` is the first that there is of:
declared by the process, systemd unit, script or module or main class, executable.
"""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from ..pipeline.counters import Counters
from ..pipeline.spans import AttributeValue
from .clock import boot_time_here
from .ids import boot_id
from .resource.cgroup import control_group
from .resource.environment import declared_attributes, declares_exporter
from .resource.procfs import ImageGoneError, ProcessImage, read_image, shows_all_processes
from .resource.program import is_spawned, program_name

logger = logging.getLogger(__name__)

Resource = Mapping[str, AttributeValue]

#: images whose resource is kept
LIMIT: Final = 4_096
#: seconds between two looks at who has ended
FORGET_INTERVAL: Final = 60.0

#: what gives way to a name that Kubernetes knows, unless the process declares it
_INFERRED: Final = ("service.name", "service.instance.id")
_COMM_SIZE = 15
#: of spawned processes: a worker, what forked it, the program
_GENERATIONS = 3
#: for ids derived from an inherent one, by the semantic conventions of service.instance.id
_INSTANCE_NAMESPACE = uuid.UUID("4d63009a-8d0f-11ee-aad7-4c796ed8e320")


class ImageKey(NamedTuple):
    """A program image as the kernel names it. start_time: of the thread group's leader, ns since boot."""

    tgid: int
    start_time: int
    exec_id: int
    comm: bytes


def image_key(process: Any) -> ImageKey:
    """Of a ``process_info`` record."""
    comm = process["comm"].tobytes().split(b"\0", 1)[0]
    return ImageKey(int(process["tgid"]), int(process["start_time"]), int(process["exec_id"]), comm)


class ProcessTable:
    """Resources of processes, cached. Not thread-safe: it belongs to the drain's thread.

    proc: where the host's /proc is mounted. limit: images kept, the least recently used goes first.
    Counts ``wirespan.processes.unresolved{reason}``, ``wirespan.processes.evicted`` and
    ``wirespan.processes.declarations_ignored`` (malformed entries of OTEL_RESOURCE_ATTRIBUTES). Reasons: ``gone``,
    ``replaced`` (by exec), ``denied`` (what is readable still counts), ``error``.
    """

    def __init__(self, counters: Counters, proc: Path = Path("/proc"), limit: int = LIMIT) -> None:
        self._counters = counters
        self._proc = proc
        self._limit = limit
        self._resources: OrderedDict[ImageKey, Resource] = OrderedDict()
        self._declaring: set[ImageKey] = set()
        self._ended: set[ImageKey] = set()  # by the last time that this was looked at, and not asked for since
        self._forget_at = time.monotonic() + FORGET_INTERVAL
        self._tick_ns = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
        self._boot_id = boot_id(proc)
        self._host_name = os.uname().nodename
        self._warn_of_other_namespace()

    def resource(self, tgid: int, start_time: int, exec_id: int, comm: bytes) -> Resource:
        """Resource attributes of the image; never empty, never an error.

        tgid: in the kernel's first pid namespace. start_time: ns since boot (CLOCK_BOOTTIME) of the thread group's
        leader. exec_id: grows at every exec. comm: up to 15 bytes, no zero bytes.
        """
        key = ImageKey(tgid, start_time, exec_id, comm)
        known = self._resources.get(key)
        if known is not None:
            self._resources.move_to_end(key)
            self._ended.discard(key)
            return known
        try:
            resource = self._look_up(key)
        except OSError as error:
            logger.warning("Cannot look up a process", extra={"pid": tgid, "error": str(error)})
            return self._unresolved(key, "error")
        self._keep(key, resource)
        return resource

    def know(self, key: ImageKey, resource: Resource) -> None:
        """What another table found, maybe of a process that has ended since."""
        if key not in self._resources:
            self._keep(key, resource)

    def forget_ended_if_due(self) -> bool:
        """Called often; does so every FORGET_INTERVAL. Whether it did."""
        now = time.monotonic()
        if now < self._forget_at:
            return False
        self._forget_at = now + FORGET_INTERVAL
        self.forget_ended()
        return True

    def forget_ended(self) -> None:
        """Forget images that had ended the last time already, and that nobody has asked for since: what they left behind in the
        kernel has come by now."""
        for key in self._ended:
            self._resources.pop(key, None)
            self._declaring.discard(key)
        self._ended = {key for key in self._resources if not os.path.exists(self._proc / str(key.tgid))}

    def image(self, key: ImageKey) -> ProcessImage | None:
        """What /proc says of the image now; None if it has ended, runs another program, or not all may be read. OSError of
        the system."""
        try:
            image = read_image(self._proc, key.tgid)
        except (ImageGoneError, PermissionError):
            return None
        is_it = image.start_ticks == boot_time_here(key.start_time) // self._tick_ns and _may_have_comm(image, key.comm)
        return image if is_it and not image.denied else None

    def is_final(self, key: ImageKey) -> bool:
        """Whether the last answer for the image holds for good; not so after an error of the system."""
        return key in self._resources

    def declares_exporter(self, key: ImageKey) -> bool:
        """Whether the image's environment says that it exports spans; see :func:`declares_exporter`."""
        return key in self._declaring

    def _look_up(self, key: ImageKey) -> Resource:
        try:
            image = read_image(self._proc, key.tgid)
        except ImageGoneError as error:
            return self._unresolved(key, error.reason)
        except PermissionError:
            return self._unresolved(key, "denied")
        if image.start_ticks != boot_time_here(key.start_time) // self._tick_ns:
            return self._unresolved(key, "gone")
        if not _may_have_comm(image, key.comm):
            return self._unresolved(key, "replaced")
        if image.denied:
            self._count_unresolved("denied")
        return self._describe(key, image)

    def _describe(self, key: ImageKey, image: ProcessImage) -> Resource:
        executable = os.path.basename(image.executable or "") or _text(key.comm)
        group = control_group(image.cgroup)
        declared = declared_attributes(image.environment)
        if declared.ignored:
            self._counters.add("wirespan.processes.declarations_ignored", declared.ignored)
        if declares_exporter(image.environment):
            self._declaring.add(key)
        attributes: dict[str, AttributeValue] = {
            "service.name": group.unit or program_name(self._called(key, image, executable), self._arguments(image)),
            **self._identity(key),
            **declared.attributes,
            "process.pid": key.tgid,  # a container's own numbering must not win
            "process.executable.name": executable,
        }
        if image.executable:
            attributes["process.executable.path"] = image.executable
        if group.container_id:
            attributes["container.id"] = group.container_id
        if group.pod_uid:
            attributes["k8s.pod.uid"] = group.pod_uid
            inferred = tuple(name for name in _INFERRED if name not in declared.attributes)
            if inferred:
                attributes["wirespan.resource.inferred"] = inferred
        return attributes

    def _arguments(self, image: ProcessImage) -> tuple[str, ...]:
        """Of a worker that Python's multiprocessing has spawned, perhaps by way of another process, those of the program
        that did it. A parent that runs something else has adopted it."""
        origin = image
        for _ in range(_GENERATIONS):
            if not is_spawned(origin.arguments):
                return origin.arguments
            try:
                parent = read_image(self._proc, origin.parent)
            except (ImageGoneError, PermissionError):
                break
            if parent.executable != image.executable:
                break
            origin = parent
        return image.arguments

    def _called(self, key: ImageKey, image: ProcessImage, executable: str) -> str:
        """The name by which a program of many names was called: Debian's redis-server is a link to redis-check-rdb."""
        name = _text(key.comm)
        if not image.executable or "/" in name or executable.startswith(name):
            return executable
        process = self._proc / str(key.tgid)
        beside = f"{process}/root{os.path.dirname(image.executable)}/{name}"
        try:
            return name if os.path.samefile(beside, process / "exe") else executable
        except OSError:  # the usual case: there is no such file, the process has renamed itself
            return executable

    def _unresolved(self, key: ImageKey, reason: str) -> Resource:
        self._count_unresolved(reason)
        comm = _text(key.comm)
        return {
            "service.name": comm,
            **self._identity(key),
            "process.pid": key.tgid,
            "process.executable.name": comm,
        }

    def _identity(self, key: ImageKey) -> dict[str, AttributeValue]:
        """The instance id is the same whenever, and however often, this image is looked up."""
        image = f"{self._boot_id:016x}/{key.tgid}/{key.start_time}/{key.exec_id}"
        return {
            "service.instance.id": str(uuid.uuid5(_INSTANCE_NAMESPACE, image)),
            "host.name": self._host_name,
        }

    def _count_unresolved(self, reason: str) -> None:
        self._counters.add("wirespan.processes.unresolved", 1, reason=reason)

    def _keep(self, key: ImageKey, resource: Resource) -> None:
        if len(self._resources) >= self._limit:
            evicted, _ = self._resources.popitem(last=False)
            self._declaring.discard(evicted)
            self._ended.discard(evicted)
            self._counters.add("wirespan.processes.evicted", 1)
        self._resources[key] = resource

    def _warn_of_other_namespace(self) -> None:
        if not shows_all_processes(self._proc):
            logger.warning(
                "/proc shows a pid namespace of its own: processes cannot be looked up and service.name is the command's "
                "name. Run in the host's pid namespace (hostPID: true, docker run --pid=host)",
                extra={"proc": str(self._proc)},
            )


def _may_have_comm(image: ProcessImage, comm: bytes) -> bool:
    """Whether the image has this comm, or had it from exec until it renamed itself."""
    if image.kernel_thread or image.comm == comm:
        return True
    paths = (image.executable or "", *image.arguments[:2])  # the second is the path of a script with a #! line
    return any(os.path.basename(path).encode()[:_COMM_SIZE] == comm for path in paths)


def _text(comm: bytes) -> str:
    return comm.decode(errors="replace") or "unnamed"
