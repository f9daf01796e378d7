"""From the rings to OTLP bytes on one core: records of a third HTTP, a third Redis and a third unknown exchanges.

A small BPF program copies prepared records into two real rings, as the kernel does: those with a request head above 64
bytes, all of HTTP, whole into one, the others shortened into another. Only what follows is timed: drain, translation,
encoding into requests. A record is one exchange seen at one end, and becomes one span. There are 60 client addresses
with 8 connections to each server, 24 processes, methods, statuses and commands. What the memory of parsers and encoder is worth
depends on keys and URLs:

* cold: each was never seen before, neither in this pass nor in an earlier one.
* warm: each record was seen shortly before.
* mixed: half of the records are as in cold, the others have one of 1,000 keys or URLs, popular ones more often.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from bench.figures import Figure, Plan, Target
from bench.surroundings import cores, pinned
from support.compiling import compile_bpf
from wirespan.pipeline.counters import Counters
from wirespan.pipeline.otlp import encode_requests
from wirespan.receiver.clock import Clock
from wirespan.receiver.ebpf import _BATCH
from wirespan.receiver.exchanges import Abi, ExchangeTranslator
from wirespan.receiver.ids import DEFAULT_KEY, IdSource, boot_id
from wirespan.receiver.kernel.btf import shortened
from wirespan.receiver.kernel.libbpf import BpfObject
from wirespan.receiver.kernel.ring import FixedRing
from wirespan.receiver.kernel.session import REQUEST_HEAD_SHORT, abi_of, object_path
from wirespan.receiver.process import ProcessTable
from wirespan.receiver.scopes import Records

_RECORDS = 4 * _BATCH
_POPULAR = 1_000
_RING = 8 << 20
_PORTS = (8080, 6379, 7000)  # HTTP, Redis, unknown
#: of a request by a browser, up to what is captured
_HEADERS = (
    b"Host: shop.example\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n"
    b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en\r\n"
)

Items: TypeAlias = npt.NDArray[np.int64]


def measure(plan: Plan) -> list[Figure]:
    with BpfObject.open(object_path()) as programs:
        dtype, abi = programs.btf.dtype("exchange"), abi_of(programs.btf)
    counters = Counters()
    clock = Clock(counters)
    ids = IdSource(DEFAULT_KEY, boot_id())
    pipeline = Pipeline(clock, ExchangeTranslator(abi, clock, ids, ProcessTable(counters), counters))
    popular = recorded(dtype, abi, _popular(np.random.default_rng(1)))
    rates: dict[str, list[float]] = {"cold": [], "mixed": [], "warm": []}
    with pinned(cores().load), Replayer(plan.folder, dtype) as replayer:
        for number in range(plan.rounds + 1):
            first = 2 * number * _RECORDS
            found = {
                "cold": replayer.play(recorded(dtype, abi, _new(first)), pipeline),
                "mixed": replayer.play(recorded(dtype, abi, _mixed(first + _RECORDS)), pipeline),
                "met": replayer.play(popular, pipeline),
                "warm": replayer.play(popular, pipeline),
            }
            if number:  # the first meets every address and process for the first time
                for name, values in rates.items():
                    values.append(found[name])
                said = ", ".join(f"{name} {values[-1]:,.0f}" for name, values in rates.items())
                plan.say(f"{number}/{plan.rounds}  {said} exchanges/s")
    return [
        Figure(
            "rings to OTLP bytes, one core, half of the keys and URLs new",
            Target.AT_LEAST,
            200_000,
            "exchanges/s",
            rates["mixed"],
            notes=[
                f"a third each HTTP, Redis and unknown; a record is one span, of {pipeline.bytes_a_span:.0f} B as OTLP",
                f"all keys and URLs new: {median(rates['cold']):,.0f}; none new: {median(rates['warm']):,.0f}",
                f"two real rings of {_RING >> 20} MiB, {_BATCH:,} records a drain",
            ],
        )
    ]


class Pipeline:
    """What the agent does with the records of a drain, up to the exporter's queue."""

    def __init__(self, clock: Clock, translator: ExchangeTranslator) -> None:
        self._clock = clock
        self._translator = translator
        self._spans = self._bytes = 0

    @property
    def bytes_a_span(self) -> float:
        return self._bytes / self._spans

    def drain(self, rings: Sequence[FixedRing]) -> float:
        """Seconds that it took to make requests of all records of one drain."""
        begin = time.perf_counter()
        with ExitStack() as stack:
            drained = [stack.enter_context(ring.drained(_BATCH)) for ring in rings]
            self._clock.sample()
            batches = [self._translator.batch(records) for records in drained]
            del drained
        requests = [request for batch in batches for request in encode_requests(batch)]
        seconds = time.perf_counter() - begin
        spans = sum(request.spans for request in requests)
        if spans != _BATCH:
            raise ValueError("not every record became a span")
        self._spans += spans
        self._bytes += sum(len(request.payload) for request in requests)
        return seconds


class Replayer:
    """The rings and the program that fills them."""

    def __init__(self, folder: Path, dtype: np.dtype[np.void]) -> None:
        self._object = BpfObject.open(compile_bpf(Path(__file__).with_name("replay.bpf.c"), folder))
        maps = self._object.maps
        maps["records"].set_max_entries(_RECORDS)
        for name in ("short_ring", "long_ring"):
            maps[name].set_max_entries(_RING)
        self._object.load()
        self._rings = (
            FixedRing(maps["short_ring"].fd, _RING, shortened(dtype, REQUEST_HEAD_SHORT)),
            FixedRing(maps["long_ring"].fd, _RING, dtype),
        )

    def play(self, records: Records, pipeline: Pipeline) -> float:
        """Exchanges a second, of all records once."""
        for index, record in enumerate(records):
            self._object.maps["records"].update(index.to_bytes(4, "little"), record.tobytes())
        seconds = 0.0
        for first in range(0, _RECORDS, _BATCH):
            self._object.programs["replay"].run(struct.pack("=QQ", first, _BATCH))
            seconds += pipeline.drain(self._rings)
        return _RECORDS / seconds

    def __enter__(self) -> Replayer:
        return self

    def __exit__(self, *_: object) -> None:
        for ring in self._rings:
            ring.close()
        self._object.close()


def _new(first: int) -> Items:
    """Numbers of keys and URLs that were never used before."""
    return _POPULAR + first + np.arange(_RECORDS)


def _popular(random: np.random.Generator) -> Items:
    return (_POPULAR * random.random(_RECORDS) ** 3).astype(np.int64)


def _mixed(first: int) -> Items:
    random = np.random.default_rng(first)
    return np.where(random.random(_RECORDS) < 0.5, _new(first), _popular(random))


def recorded(dtype: np.dtype[np.void], abi: Abi, items: Items, seed: int = 1) -> Records:
    """Records as the kernel writes them. items: of each the number of its key, URL or content."""
    random = np.random.default_rng(seed)
    records = np.zeros(_RECORDS, dtype)
    kind = np.arange(_RECORDS) % 3
    server_side = random.integers(0, 2, _RECORDS).astype(bool)
    client = random.integers(0, 60, _RECORDS)
    addresses = _addresses(10, client), _addresses(20, kind)
    ports = 32_768 + client * 8 + random.integers(0, 8, _RECORDS), np.array(_PORTS)[kind]
    connection = records["connection"]
    connection["role"] = np.where(server_side, abi.role_server, abi.role_client)
    for field, client_end in (("local", ~server_side), ("remote", server_side)):
        connection[f"{field}_address"] = np.where(client_end[:, None], *addresses)
        connection[f"{field}_port"] = np.where(client_end, *ports)
    connection["cookie"] = 1 + ports[0].astype(np.uint64) * 6 + kind * 2 + server_side
    connection["sequence"] = random.integers(0, 2**32, _RECORDS)
    records["process"]["tgid"] = 1_000_000 + np.where(server_side, kind, 3 + client % 21)
    records["position"] = random.integers(0, 2**20, _RECORDS)
    _set_times(records, random)
    answers = random.integers(0, 20, _RECORDS)
    exchanges = [_exchange(*draw) for draw in zip(kind.tolist(), items.tolist(), answers.tolist(), strict=True)]
    _set_heads(records, "request", [request for request, _ in exchanges])
    _set_heads(records, "response", [response for _, response in exchanges])
    return records


def _addresses(network: int, host: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """10.0.0.1 and so on as 16 bytes (RFC 4291, section 2.5.5.2)."""
    addresses = np.zeros((len(host), 16), np.uint8)
    addresses[:, 10:12] = 0xFF
    addresses[:, 12] = network
    addresses[:, 15] = host + 1
    return addresses


def _set_times(records: Records, random: np.random.Generator) -> None:
    now = time.monotonic_ns() - 10**9 + np.arange(_RECORDS) * 1_000
    for field in ("arrived", "request_start", "request_end", "response_start", "response_end"):
        records[field] = now = now + random.integers(1_000, 100_000, _RECORDS)


def _exchange(kind: int, item: int, answer: int) -> tuple[bytes, bytes]:
    """The bytes of a request and its response."""
    if kind == 0:
        method = b"POST" if answer < 4 else b"GET"
        status = {0: b"404 Not Found", 1: b"500 Internal Server Error"}.get(answer, b"200 OK")
        request = b"%s /shop/item/%d?page=%d HTTP/1.1\r\n" % (method, item, answer) + _HEADERS
        return request, b"HTTP/1.1 %s\r\nServer: nginx\r\nContent-Type: text/html\r\nContent-Length: 612\r\n" % status
    if kind == 1:
        key = b"session:%012d" % item
        if answer < 5:
            return b"*3\r\n$3\r\nSET\r\n$20\r\n%s\r\n$3\r\nabc\r\n" % key, b"+OK\r\n"
        command = b"HGETALL" if answer < 8 else b"GET"
        return b"*2\r\n$%d\r\n%s\r\n$20\r\n%s\r\n" % (len(command), command, key), b"$3\r\nabc\r\n"
    return struct.pack(">IIQ", 64, answer, item) + bytes(range(48)), struct.pack(">IIQ", 32, answer, item) + bytes(16)


def _set_heads(records: Records, side: str, contents: Sequence[bytes]) -> None:
    heads = records[f"{side}_head"]
    width = heads.shape[1]
    sizes = np.array([len(content) for content in contents])
    records[f"{side}_size"] = sizes
    records[f"{side}_captured"] = np.minimum(sizes, width)
    padded = b"".join(content[:width].ljust(width, b"\0") for content in contents)
    heads[:] = np.frombuffer(padded, np.uint8).reshape(-1, width)
