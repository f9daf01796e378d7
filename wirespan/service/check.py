"""What the eBPF receiver needs of the machine: looked up, not tried, so that nothing is loaded or attached.

Each requirement is one function from a :class:`Machine` to a :class:`Finding`, which says what was found and what to
type. What is not essential is a warning that names what is lost. Not checked, because it cannot matter: the memlock
limit (since 5.11 BPF memory is accounted to the cgroup) and ``kernel.unprivileged_bpf_disabled`` (it concerns only
those who lack the capabilities asked for here).
"""

from __future__ import annotations

import ctypes
import errno
import platform
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from importlib.resources import files
from pathlib import Path

from ..receiver.resource.procfs import shows_all_processes

MINIMUM_KERNEL = (6, 3)
MINIMUM_LIBBPF = (1, 0)
ARCHITECTURE = "x86_64"

ESSENTIAL_TRACEPOINTS = ("sock_send_length", "sock_recv_length", "inet_sock_set_state", "tcp_destroy_sock")
#: The others, and what is lost without them.
OPTIONAL_TRACEPOINTS = {
    "tcp_sendmsg_locked": "a client span starts when its send returns, not when it begins",
    "sk_data_ready": "no queue time: when bytes arrived is not known, only when they were read",
}

# include/uapi/linux/capability.h
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE, CAP_SYS_ADMIN, CAP_SYS_NICE = 1, 2, 19, 21, 23
CAP_PERFMON, CAP_BPF = 38, 39

_AS_ROOT = (
    "run it as root: sudo wirespan run (a service or a container: grant CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE and "
    "CAP_DAC_READ_SEARCH)"
)
#: getrlimit(2), RLIMIT_NICE: 20 stands for nice 0
_NICE_ZERO = 20

# include/uapi/linux/btf.h, struct btf_header: magic, version, flags, hdr_len, type_off, type_len, str_off, str_len
_BTF_HEADER = struct.Struct("=HBBIIIII")
_BTF_MAGIC = 0xEB9F


class Verdict(Enum):
    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. remedy: what to do, empty if nothing need be done."""

    requirement: str
    verdict: Verdict
    found: str
    remedy: str = ""


def _object_file() -> Path:
    return Path(str(files("wirespan"))) / "bpf" / "wirespan.bpf.o"


def _native_library() -> Path:
    return Path(str(files("wirespan"))) / "native" / "libwirespan.so.1"


@dataclass(frozen=True)
class Machine:
    """Where to look; tests look elsewhere. root: above ``proc`` and ``sys``."""

    root: Path = Path("/")
    release: str = field(default_factory=platform.release)
    architecture: str = field(default_factory=platform.machine)
    libbpf: str = "libbpf.so.1"
    object_file: Path = field(default_factory=_object_file)
    native_library: Path = field(default_factory=_native_library)

    @cached_property
    def btf_strings(self) -> bytes:
        """The names in the kernel's BTF, each between zero bytes; raises OSError, or ValueError if it is no BTF."""
        content = (self.root / "sys/kernel/btf/vmlinux").read_bytes()
        if len(content) < _BTF_HEADER.size:
            raise ValueError("too short for BTF")
        magic, _, _, header_size, _, _, offset, size = _BTF_HEADER.unpack_from(content)
        if magic != _BTF_MAGIC:
            raise ValueError("no BTF of this byte order")
        return content[header_size + offset :][:size]

    @cached_property
    def capabilities(self) -> int:
        """The effective set; bit n is capability n."""
        status = (self.root / "proc/self/status").read_text(encoding="ascii", errors="replace")
        found = re.search(r"^CapEff:\s*([0-9a-f]+)", status, re.MULTILINE)
        return int(found[1], 16) if found else 0

    def has(self, capability: int) -> bool:
        return bool(self.capabilities >> capability & 1)

    def lacks_tracepoints(self, names: Sequence[str]) -> list[str]:
        """Those that the kernel has not: a BTF tracepoint is known by its typedef ``btf_trace_<name>``."""
        return [name for name in names if b"\0btf_trace_%s\0" % name.encode() not in self.btf_strings]


def check_kernel(machine: Machine) -> Finding:
    name, wanted = "kernel", ".".join(map(str, MINIMUM_KERNEL))
    found = re.match(r"(\d+)\.(\d+)", machine.release)
    if found and (int(found[1]), int(found[2])) >= MINIMUM_KERNEL:
        return Finding(name, Verdict.OK, machine.release)
    return Finding(
        name, Verdict.FAILED, machine.release, f"boot Linux {wanted} or later (sock_send_length is of {wanted})"
    )


def check_architecture(machine: Machine) -> Finding:
    name = "architecture"
    if machine.architecture == ARCHITECTURE:
        return Finding(name, Verdict.OK, machine.architecture)
    return Finding(
        name, Verdict.FAILED, machine.architecture, f"use a machine of {ARCHITECTURE}; no other works so far"
    )


def check_btf(machine: Machine) -> Finding:
    name, path = "kernel type information (BTF)", "/sys/kernel/btf/vmlinux"
    try:
        return Finding(name, Verdict.OK, f"{path}, {len(machine.btf_strings) // 1024} KiB of names")
    except FileNotFoundError:
        remedy = "boot a kernel with CONFIG_DEBUG_INFO_BTF=y, as distributions' kernels are; in a container mount /sys"
        return Finding(name, Verdict.FAILED, f"no {path}", remedy)
    except OSError as error:
        return Finding(name, Verdict.FAILED, f"{path}: {error.strerror}", _AS_ROOT)
    except ValueError as error:
        return Finding(name, Verdict.FAILED, f"{path}: {error}", "boot a distribution's kernel")


def check_essential_tracepoints(machine: Machine) -> Finding:
    name = "tracepoints"
    try:
        missing = machine.lacks_tracepoints(ESSENTIAL_TRACEPOINTS)
    except (OSError, ValueError):
        return Finding(name, Verdict.FAILED, "not known without BTF", "see kernel type information")
    if missing:
        wanted = ".".join(map(str, MINIMUM_KERNEL))
        return Finding(name, Verdict.FAILED, f"no {', '.join(missing)}", f"boot Linux {wanted} or later")
    return Finding(name, Verdict.OK, ", ".join(ESSENTIAL_TRACEPOINTS))


def check_optional_tracepoints(machine: Machine) -> Finding:
    name = "optional tracepoints"
    try:
        missing = machine.lacks_tracepoints(tuple(OPTIONAL_TRACEPOINTS))
    except (OSError, ValueError):
        return Finding(name, Verdict.WARNING, "not known without BTF", "see kernel type information")
    if missing:
        losses = "; ".join(OPTIONAL_TRACEPOINTS[tracepoint] for tracepoint in missing)
        return Finding(name, Verdict.WARNING, f"no {', '.join(missing)}", f"a newer kernel; without: {losses}")
    return Finding(name, Verdict.OK, ", ".join(OPTIONAL_TRACEPOINTS))


def check_capabilities(machine: Machine) -> Finding:
    name = "capabilities to load programs"
    identity = (machine.root / "proc/self/uid_map").read_text(encoding="ascii").split()
    if identity != ["0", "0", str(2**32 - 1)]:
        # bpf(2) asks for capabilities in the initial user namespace, whatever CapEff says in another.
        remedy = "run it outside, or in a container that is not rootless"
        return Finding(name, Verdict.FAILED, "only those of a user namespace", remedy)
    if machine.has(CAP_SYS_ADMIN):
        return Finding(name, Verdict.OK, "CAP_SYS_ADMIN")
    wanted = {"CAP_BPF": CAP_BPF, "CAP_PERFMON": CAP_PERFMON}
    missing = [capability for capability, number in wanted.items() if not machine.has(number)]
    if missing:
        return Finding(name, Verdict.FAILED, f"no {', '.join(missing)}", _AS_ROOT)
    return Finding(name, Verdict.OK, ", ".join(wanted))


def check_process_capabilities(machine: Machine) -> Finding:
    """proc(5): links and memory of a process ask for ptrace access, and files for that of their owner besides."""
    name = "capabilities to read other processes"
    lost = {}
    if not machine.has(CAP_SYS_PTRACE):
        lost["CAP_SYS_PTRACE"] = "executable and environment of a process with another user or more capabilities"
    if not machine.has(CAP_DAC_READ_SEARCH) and not machine.has(CAP_DAC_OVERRIDE):
        lost["CAP_DAC_READ_SEARCH"] = "environment of another user's process, where service.name is declared"
    if lost:
        remedy = f"grant what is missing, or run it as root; not seen without: {'; '.join(lost.values())}"
        return Finding(name, Verdict.WARNING, f"no {', '.join(lost)}", remedy)
    return Finding(name, Verdict.OK, "CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH")


def check_scheduling(machine: Machine) -> Finding:
    """A thread may leave the policy SCHED_IDLE by CAP_SYS_NICE, or if RLIMIT_NICE allows its nice value; sched(7)."""
    name = "giving way to what is watched"
    if machine.has(CAP_SYS_NICE):
        return Finding(name, Verdict.OK, "CAP_SYS_NICE")
    limits = (machine.root / "proc/self/limits").read_text(encoding="ascii")
    found = re.search(r"^Max nice priority +(\d+|unlimited)", limits, re.MULTILINE)
    limit = found[1] if found else "0"
    if limit == "unlimited" or int(limit) >= _NICE_ZERO:
        return Finding(name, Verdict.OK, f"RLIMIT_NICE {limit}")
    remedy = f"docker run --ulimit nice={_NICE_ZERO}, LimitNICE=+0 of a systemd unit, or CAP_SYS_NICE"
    loss = "without: what is watched may wait for the agent's thread as for any other"
    return Finding(name, Verdict.WARNING, f"no CAP_SYS_NICE, RLIMIT_NICE {limit}", f"{remedy}; {loss}")


def check_pid_namespace(machine: Machine) -> Finding:
    """The kernel numbers processes in its first pid namespace; /proc, by which they are looked up, may be of another."""
    name = "processes of the whole machine"
    if shows_all_processes(machine.root / "proc"):
        return Finding(name, Verdict.OK, "/proc shows them")
    loss = "without: service.name is a process's command name, and process and container attributes are missing"
    remedy = f"run it in the host's pid namespace (hostPID: true, docker run --pid=host); {loss}"
    return Finding(name, Verdict.WARNING, "/proc shows a pid namespace of its own", remedy)


def check_libbpf(machine: Machine) -> Finding:
    name = "libbpf"
    wanted = ".".join(map(str, MINIMUM_LIBBPF))
    try:
        library = ctypes.CDLL(machine.libbpf)
        version = library.libbpf_major_version(), library.libbpf_minor_version()
    except (OSError, AttributeError) as error:
        return Finding(name, Verdict.FAILED, str(error), "install it: sudo apt install libbpf1")
    found = ".".join(map(str, version))
    if version < MINIMUM_LIBBPF:
        return Finding(name, Verdict.FAILED, found, f"install libbpf {wanted} or later: sudo apt install libbpf1")
    return Finding(name, Verdict.OK, found)


def check_object_file(machine: Machine) -> Finding:
    return _check_compiled("compiled programs", machine.object_file)


def check_native_library(machine: Machine) -> Finding:
    return _check_compiled("compiled library", machine.native_library)


def _check_compiled(name: str, file: Path) -> Finding:
    try:
        with file.open("rb") as content:
            is_elf = content.read(4) == b"\x7fELF"
    except OSError as error:
        reason = "not compiled yet" if error.errno == errno.ENOENT else error.strerror
        return Finding(name, Verdict.FAILED, f"{file}: {reason}", "run make setup")
    if not is_elf:
        return Finding(name, Verdict.FAILED, f"{file}: no ELF object", "remove it and run make setup")
    return Finding(name, Verdict.OK, str(file))


def check_lockdown(machine: Machine) -> Finding:
    """Kernel lockdown (kernel_lockdown(7)): at confidentiality, BPF may not read kernel memory."""
    name = "kernel lockdown"
    try:
        state = (machine.root / "sys/kernel/security/lockdown").read_text(encoding="ascii").strip()
    except OSError:
        return Finding(name, Verdict.OK, "not visible; then it is off, or the kernel will say so")
    active = re.search(r"\[(\w+)\]", state)
    if active and active[1] == "confidentiality":
        remedy = "boot without lockdown=confidentiality; lockdown=integrity is fine"
        return Finding(name, Verdict.FAILED, active[1], remedy)
    return Finding(name, Verdict.OK, active[1] if active else state)


def check_jit(machine: Machine) -> Finding:
    name = "BPF compiler (JIT)"
    try:
        state = (machine.root / "proc/sys/net/core/bpf_jit_enable").read_text(encoding="ascii").strip()
    except OSError:
        return Finding(name, Verdict.OK, "not visible from this network namespace")
    if state == "0":
        remedy = "sudo sysctl net.core.bpf_jit_enable=1; without: every socket call pays several times more"
        return Finding(name, Verdict.WARNING, "off", remedy)
    return Finding(name, Verdict.OK, "on")


CHECKS: tuple[Callable[[Machine], Finding], ...] = (
    check_kernel,
    check_architecture,
    check_btf,
    check_essential_tracepoints,
    check_optional_tracepoints,
    check_capabilities,
    check_process_capabilities,
    check_scheduling,
    check_pid_namespace,
    check_lockdown,
    check_jit,
    check_libbpf,
    check_object_file,
    check_native_library,
)


def run_checks(machine: Machine | None = None) -> list[Finding]:
    """All findings, in the order of the table."""
    machine = machine or Machine()
    return [check(machine) for check in CHECKS]
