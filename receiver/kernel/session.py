"""The loaded and attached programs of ``bpf/``, with their rings, counters and constants: one run in the kernel."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...native.library import NativeError, check_records
from ...native.sources import of_programs
from ...pipeline.component import StartError
from ...pipeline.counters import CounterKey, Counters
from ...pipeline.spans import SpanKind
from ..budget import first_room, room_of_all
from ..edge_groups import EdgeNames
from ..exchanges import Abi
from ..histogram import slot_table
from ..ids import DEFAULT_KEY, boot_id
from ..policies import POLICIES, Memory, Policies
from ..sampling import Sampling
from .btf import Btf, shortened
from .cgroups import Cgroups
from .edges import TCP_SHARE, EdgeMap, TcpMap, edges_within
from .libbpf import Program
from .library import cpu_numbers
from .others import warn_of_others
from .own_cost import OwnCost
from .programs import Attached, load
from .ring import FixedRing, VariableRing
from .tables import COUNTERS, DEARER, FIRST, FOR_LAST_LOOK, METRICS_PROGRAMS, PROGRAMS, PROTOCOLS

logger = logging.getLogger(__name__)

#: bytes of the request head in a short record, see bpf/record.h
REQUEST_HEAD_SHORT = 64
_SCRATCH_PER_CPU = 2
#: connections of which the requesting process is known, if processes are selected; the least recently used goes first
_REQUESTERS = 65_536
#: listening ports of which the process is known, if there are metrics
_ACCEPTORS = 4_096


@dataclass(frozen=True, slots=True)
class KernelSettings:
    """What the programs are told before they are loaded. Sizes in bytes, times in ns. ports: None for all. by_process:
    whether processes are selected too, which :attr:`KernelSession.left_out` is then told. payload: whether any is read.
    edges_memory: for metrics; 0: there are none."""

    ports: frozenset[int] | None
    by_process: bool
    payload: bool
    sampling: Sampling
    settle_ns: int
    request_timeout_ns: int
    udp_timeout_ns: int
    exchanges_size: int
    long_exchanges_size: int
    segments_size: int
    id_key: bytes | None
    message_spans: bool = False
    edges_memory: int = 0


def object_path() -> Path:
    """The compiled programs, built by ``make setup``."""
    with as_file(files("wirespan") / "bpf" / "wirespan.bpf.o") as path:
        return path


class LeftOut:
    """The program images that the kernel leaves out: each the first 16 bytes of a ``process_info``."""

    def __init__(self, programs: Attached) -> None:
        self._programs = programs
        self._changes = 1

    def add(self, image: bytes) -> None:
        self._programs.maps["left_out"].update(image, b"\1")
        self._tell()

    def discard(self, image: bytes) -> None:
        self._programs.maps["left_out"].delete(image)
        self._tell()

    def _tell(self) -> None:
        """Connections keep what they found until this number is another one."""
        self._changes = self._changes % 0xFFFF_FFFF + 1
        self._programs.object.set_variable("verdicts_changed", self._changes)


def loaded(settings: KernelSettings) -> Attached:
    """The programs in the kernel, attached to nothing: what takes long of a start. Raises StartError."""
    sampling = settings.sampling
    return load(
        object_path(),
        PROGRAMS + (METRICS_PROGRAMS if settings.edges_memory else ()),
        constants={
            "settle": settings.settle_ns,
            "request_timeout": settings.request_timeout_ns,
            "udp_timeout": settings.udp_timeout_ns,
            "select_ports": settings.ports is not None,
            "watched_ports": port_bits(settings.ports or ()),
            "select_processes": settings.by_process,
            "read_payload": settings.payload,
            "message_spans": settings.message_spans,
            "sampling": sampling.active,
            "by_policy": sampling.by_policy,
            "budgeted": sampling.budgeted,
            "keep_errors": sampling.keep_errors,
            "sampling_thresholds": sampling.thresholds,
            "id_key": np.frombuffer(settings.id_key or DEFAULT_KEY, "<u8"),
            "boot_id": boot_id(),
            **({"aggregate": True, "slots": slot_table()} if settings.edges_memory else {}),
        },
        map_sizes={
            "short_exchanges": settings.exchanges_size,
            "long_exchanges": settings.long_exchanges_size,
            "segments": settings.segments_size,
            "scratch": _SCRATCH_PER_CPU * cpu_numbers(),
            "requesters": _REQUESTERS if settings.by_process else 1,
            "acceptors": _ACCEPTORS if settings.edges_memory else 1,
            "policy_counts": cpu_numbers() if sampling.budgeted else 1,
            "edges": lambda edges: edges_within(int(settings.edges_memory * (1 - TCP_SHARE)), edges),
            "tcp_edges": lambda edges: edges_within(int(settings.edges_memory * TCP_SHARE), edges),
        },
        sources=of_programs(),
    )


class KernelSession:
    """Loads and attaches; raises StartError with the kernel's words when that is impossible. programs: those that are loaded
    already, with the same settings."""

    def __init__(self, settings: KernelSettings, counters: Counters, programs: Attached | None = None) -> None:
        self._closed = False
        self._lock = threading.Lock()  # counters are read by other threads, also while the receiver stops
        self.id_key = settings.id_key or DEFAULT_KEY
        self.boot_id = boot_id()
        self.settle_ns = settings.settle_ns
        self.request_timeout_ns = settings.request_timeout_ns
        self.sampling = settings.sampling
        self._programs = loaded(settings) if programs is None else programs
        try:
            self._begin(settings)
        except BaseException:
            self._programs.close()
            raise
        counters.source(self._counted)
        counters.duration_source(self._seconds)

    def _begin(self, settings: KernelSettings) -> None:
        programs, btf = self._programs, self._programs.btf
        self._counter_names = {value: name for name, value in btf.enum("counter").items() if name != "COUNTERS"}
        self._last_counts: dict[CounterKey, int] = {}
        self._last_seconds: dict[CounterKey, float] = {}
        self._own_cost = OwnCost(programs)
        self._adopted = 0
        exchange = btf.dtype("exchange")
        self.segment_dtype = btf.dtype("segment")
        self.exchange_dtype = shortened(exchange, REQUEST_HEAD_SHORT)
        self.row_dtype, long_rows = self.exchange_dtype, exchange
        if settings.by_process:
            self.row_dtype, long_rows = with_requester(self.exchange_dtype), with_requester(exchange)
        self.abi = abi_of(btf)
        self.protocol_resp = btf.enum("protocol")["PROTOCOL_RESP"]
        rings = programs.maps
        self.left_out = LeftOut(programs)
        self.cgroups = Cgroups(programs)
        self.short_exchanges = FixedRing(rings["short_exchanges"].fd, settings.exchanges_size, self.row_dtype)
        self.long_exchanges = FixedRing(rings["long_exchanges"].fd, settings.long_exchanges_size, long_rows)
        self.segments = VariableRing(rings["segments"].fd, settings.segments_size)
        self.edges, self.tcp, self.edge_names = EdgeMap(programs), TcpMap(programs), edge_names_of(btf)
        self.policies = self._policies() if self.sampling.by_policy else None
        programs.run("identify_agent")
        warn_of_others(programs)
        if settings.payload:
            self._find_direct_map()
        programs.attach(*FIRST)
        if settings.edges_memory:
            self.tcp.open_connections()  # for the listening sockets that there are
        self._join_existing()
        programs.attach()
        self._join_existing()
        programs.object.set_variable("starting", 0)
        self._adopted = self._join_existing()
        for report in programs.reports:
            logger.warning(str(report))

    def _join_existing(self) -> int:
        """Tell the programs of the connections that exist. Returns how many of them are selected."""
        if not self._programs.available("join_existing"):
            return 0
        return len(np.unique(np.frombuffer(self._programs.iterate("join_existing"), "<u8")))

    def _find_direct_map(self) -> None:
        """Tell the programs where the kernel maps all memory; see bpf/direct_map.h."""
        if not self._programs.available("find_direct_map"):
            return
        text = np.zeros((), self._programs.btf.dtype("pipe_text"))
        reader, writer = os.pipe()
        try:
            text["fd"], text["text"] = reader, np.frombuffer(os.urandom(text["text"].nbytes), "<u8")
            os.write(writer, text["text"].tobytes())
            found = self._programs.run("find_direct_map", text.tobytes())
        finally:
            os.close(reader)
            os.close(writer)
        if not found:
            logger.warning("The kernel's map of all memory was not found; %s", DEARER)

    def rejoin(self, cgroup: int) -> None:
        """Take up the connections of a control group that is watched again."""
        self._programs.object.set_variable("cgroup_returning", cgroup)
        self._join_existing()
        self._programs.object.set_variable("cgroup_returning", 0)

    def finish_quiet(self) -> None:
        """Let the kernel end the exchanges that have been quiet for ``settle``."""
        if self._programs.available("finish_quiet"):
            self._programs.iterate("finish_quiet")

    def expire_requests(self) -> None:
        """Let the kernel give up the requests of UDP that have waited for ``udp_timeout``."""
        if self._programs.available("expire_requests"):
            self._programs.run("expire_requests")

    def _policies(self) -> Policies:
        programs, most = self._programs, self.sampling.max_per_second
        counts = programs.maps["policy_counts"].mapped(programs.btf.dtype("policy_counts"))
        live = programs.object.live
        shared = live("budget_left"), live("budget_reserved"), live("room_shared")
        memory = Memory(live("policies"), counts.reshape(-1, POLICIES), *shared)
        if most is None:
            return Policies(memory, self.sampling, self.abi.role_server)
        return Policies(memory, self.sampling, self.abi.role_server, first_room(most), room_of_all(most))

    def read_payload(self, whether: bool) -> None:
        """Whether bytes of what travels are read from now on."""
        self._programs.object.set_variable("payload_off", not whether)

    def forget_datagrams(self) -> None:
        """Let the kernel give back what it keeps of sockets of UDP that have been quiet for long."""
        if self._programs.available("forget_datagrams"):
            self._programs.iterate("forget_datagrams")

    def detach(self) -> None:
        """Stop watching, and let the kernel end every exchange that has its response, so that a last drain finds it."""
        # Connections that close meanwhile end their exchanges by tcp_destroy_sock, the others by finish_quiet.
        self._programs.detach("finish_quiet", "tcp_destroy_sock", *FOR_LAST_LOOK)
        self._programs.object.set_variable("stopping", 1)
        self.finish_quiet()
        self._programs.detach(*FOR_LAST_LOOK)

    def in_flight(self) -> int:
        """Exchanges that the kernel has written to the rings and nobody has drained."""
        with self._lock:
            return 0 if self._closed else sum(ring.records() for ring in (self.short_exchanges, self.long_exchanges))

    def fullness(self) -> float:
        """How much of the fullest ring waits, 0 to 1. For the thread that drains."""
        return max(
            ring.pending() / ring.capacity for ring in (self.short_exchanges, self.long_exchanges, self.segments)
        )

    def close(self) -> None:
        """Take everything out of the kernel. Idempotent; counters keep their last values."""
        with self._lock:
            if self._closed:
                return
            self._last_counts = self._read_counts()
            self._last_seconds = self._own_cost.seconds()
            self._closed = True
            if self.policies is not None:
                self.policies.close()
            self._programs.close()
            for ring in (self.short_exchanges, self.long_exchanges, self.segments):
                ring.close()

    def attached_programs(self) -> dict[str, Program]:
        """By name; for what the kernel says of their runs."""
        return {name: self._programs.object.programs[name] for name in self._programs.links}

    @property
    def closed(self) -> bool:
        return self._closed

    def _counted(self) -> dict[CounterKey, int]:
        with self._lock:
            return self._last_counts if self._closed else self._read_counts()

    def _seconds(self) -> dict[CounterKey, float]:
        with self._lock:
            return self._last_seconds if self._closed else self._own_cost.seconds()

    def _read_counts(self) -> dict[CounterKey, int]:
        counts: dict[CounterKey, int] = {("wirespan.connections.adopted", ()): self._adopted}
        sums = self._programs.maps["counters"].sums_per_cpu()
        for value, name in self._counter_names.items():
            counts[COUNTERS[name]] = int(sums[value] + sums[len(sums) // 2 + value])
        counts.update(self.cgroups.counts())
        for name in self._programs.links:
            # The kernel leaves a run out when the same program is running on that CPU, interrupted.
            missed = self._programs.object.programs[name].statistics().recursion_misses
            counts["wirespan.hooks.missed", (("program", name),)] = missed
        return counts


def with_requester(exchange: np.dtype[np.void]) -> np.dtype[np.void]:
    """Records that say before the exchange who sent its request; see bpf/record.h."""
    return np.dtype([("requester", exchange["process"]), ("exchange", exchange)])


def port_bits(ports: Iterable[int]) -> npt.NDArray[np.uint64]:
    """The bit of each port set, (1024,)."""
    bits = np.zeros(1 << 16, np.uint8)
    bits[list(ports)] = 1
    return np.packbits(bits, bitorder="little").view("<u8")


def abi_of(btf: Btf) -> Abi:
    """What record.h names, from the BTF of the programs. StartError if wirespan/native was compiled from another one."""
    try:
        check_records(btf.dtype("exchange"))
    except NativeError as error:
        raise StartError(str(error)) from error
    role, flag = btf.enum("role"), btf.enum("exchange_flag")
    return Abi(
        role_client=role["ROLE_CLIENT"],
        role_server=role["ROLE_SERVER"],
        direction_sent=btf.enum("direction")["DIRECTION_SENT"],
        outcomes={value: name.removeprefix("OUTCOME_").lower() for name, value in btf.enum("outcome").items() if value},
        flag_peer_observed=flag["FLAG_PEER_OBSERVED"],
        flag_send_start_unknown=flag["FLAG_SEND_START_UNKNOWN"],
        flag_pipelined=flag["FLAG_PIPELINED"],
        flag_resent=flag["FLAG_RESENT"],
        flag_message=flag["FLAG_MESSAGE"],
    )


def edge_names_of(btf: Btf) -> EdgeNames:
    """What the numbers of ``struct edge`` are called in metrics, from the BTF of the programs."""
    role, protocol, status = btf.enum("role"), btf.enum("protocol"), btf.enum("status_class")
    outcomes, flag = btf.enum("outcome"), btf.enum("exchange_flag")
    return EdgeNames(
        kinds={role["ROLE_CLIENT"]: SpanKind.CLIENT, role["ROLE_SERVER"]: SpanKind.SERVER},
        transports={socket.IPPROTO_TCP: "tcp", socket.IPPROTO_UDP: "udp"},
        protocols={number: PROTOCOLS[name] for name, number in protocol.items()},
        statuses={number: _lower(name, "STATUS_").replace("unknown", "") for name, number in status.items()},
        outcomes={number: _lower(name, "OUTCOME_") if number else "" for name, number in outcomes.items()},
        peers={number: _lower(name, "PEER_").replace("unknown", "") for name, number in btf.enum("peer_class").items()},
        flags_on_machine=flag["FLAG_PEER_OBSERVED"] | flag["FLAG_PEER_UNWATCHED"],
    )


def _lower(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).lower()
