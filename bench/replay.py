"""From the ring to OTLP bytes on one core: records of a third HTTP, a third Redis and a third unknown exchanges.

A small BPF program copies prepared records into a real ring; only what follows is timed: drain, translation, encoding
into requests. A record is one exchange seen at one end, and becomes one span. The records are prepared with 60 client
addresses and some thousand ports, 24 processes, methods, statuses, commands, 4,000 keys and 4,000 URLs, the latter
unevenly: popular ones are what the memory of parsers and encoder is for.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.figures import Figure, Plan, Target
from bench.surroundings import cores, pinned
from support.compiling import compile_bpf
from wirespan.pipeline.counters import Counters
from wirespan.pipeline.otlp import encode_requests
from wirespan.receiver.clock import Clock
from wirespan.receiver.exchanges import Abi, ExchangeTranslator, Records
from wirespan.receiver.ids import DEFAULT_KEY, IdSource, boot_id
from wirespan.receiver.kernel.btf import shortened
from wirespan.receiver.kernel.libbpf import BpfObject
from wirespan.receiver.kernel.ring import FixedRing
from wirespan.receiver.kernel.session import REQUEST_HEAD_SHORT, abi_of, object_path
from wirespan.receiver.process import ProcessTable

#: the most that the receiver takes from a ring at once
_BATCH = 4_096
_RECORDS = 16 * _BATCH
_RING = 8 << 20
_PORTS = (8080, 6379, 7000)  # HTTP, Redis, unknown
_WIDTH = REQUEST_HEAD_SHORT


def measure(plan: Plan) -> list[Figure]:
    with BpfObject.open(object_path()) as programs:
        dtype, abi = shortened(programs.btf.dtype("exchange"), REQUEST_HEAD_SHORT), abi_of(programs.btf)
    counters = Counters()
    clock = Clock(counters)
    ids = IdSource(DEFAULT_KEY, boot_id())
    translator = ExchangeTranslator(abi, clock, ids, ProcessTable(counters), counters)
    rates, sizes = [], []
    with pinned(cores().load), Replayer(plan.folder, recorded(dtype, abi)) as replayer:
        for number in range(plan.rounds + 1):
            rate, size = replayer.play(clock, translator)
            if number:  # the first meets every URL and process for the first time
                rates.append(rate)
                sizes.append(size)
                plan.say(f"{number}/{plan.rounds}  {rate:,.0f} exchanges/s")
    return [
        Figure(
            "ring to OTLP bytes, one core",
            Target.AT_LEAST,
            200_000,
            "exchanges/s",
            rates,
            notes=[
                f"a third each HTTP, Redis and unknown; a record is one span, of {np.mean(sizes):.0f} B as OTLP",
                f"a real ring of {_RING >> 20} MiB, {_BATCH:,} records a drain",
            ],
        )
    ]


class Replayer:
    """The ring and the program that fills it."""

    def __init__(self, folder: Path, records: Records) -> None:
        self._object = BpfObject.open(compile_bpf(Path(__file__).with_name("replay.bpf.c"), folder))
        self._object.maps["records"].set_max_entries(len(records))
        self._object.maps["ring"].set_max_entries(_RING)
        self._object.load()
        self._ring = FixedRing(self._object.maps["ring"].fd, _RING, records.dtype)
        for index, record in enumerate(records):
            self._object.maps["records"].update(index.to_bytes(4, "little"), record.tobytes())

    def play(self, clock: Clock, translator: ExchangeTranslator) -> tuple[float, float]:
        """Exchanges a second, and bytes a span, of all records once."""
        seconds, size = 0.0, 0
        for first in range(0, _RECORDS, _BATCH):
            self._object.programs["replay"].run(struct.pack("=QQ", first, _BATCH))
            begin = time.perf_counter()
            records = self._ring.drain(_BATCH)
            clock.sample()
            requests = encode_requests(translator.batch(records))
            seconds += time.perf_counter() - begin
            size += sum(len(request.payload) for request in requests)
            if sum(request.spans for request in requests) != _BATCH:
                raise ValueError("not every record became a span")
        return _RECORDS / seconds, size / _RECORDS

    def __enter__(self) -> Replayer:
        return self

    def __exit__(self, *_: object) -> None:
        self._ring.close()
        self._object.close()


def recorded(dtype: np.dtype[np.void], abi: Abi, seed: int = 1) -> Records:
    """Records as the kernel writes them."""
    random = np.random.default_rng(seed)
    records = np.zeros(_RECORDS, dtype)
    kind = np.arange(_RECORDS) % 3
    server_side = random.integers(0, 2, _RECORDS).astype(bool)
    client = random.integers(0, 60, _RECORDS)
    addresses = _addresses(10, client), _addresses(20, kind)
    ports = 32_768 + client * 64 + random.integers(0, 64, _RECORDS), np.array(_PORTS)[kind]
    connection = records["connection"]
    connection["role"] = np.where(server_side, abi.role_server, abi.role_client)
    for field, client_end in (("local", ~server_side), ("remote", server_side)):
        connection[f"{field}_address"] = np.where(client_end[:, None], *addresses)
        connection[f"{field}_port"] = np.where(client_end, *ports)
    connection["sequence"] = random.integers(0, 2**32, _RECORDS)
    records["process"]["tgid"] = 1_000_000 + np.where(server_side, kind, 3 + client % 21)
    records["position"] = random.integers(0, 2**20, _RECORDS)
    _set_times(records, random)
    exchanges = [_exchange(int(k), *draw) for k, draw in zip(kind, _draws(random), strict=True)]
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


def _draws(random: np.random.Generator) -> list[tuple[int, int]]:
    """Of each record which key, URL or content it has, few of them often, and which answer."""
    items = (4_000 * random.random(_RECORDS) ** 3).astype(int)
    return list(zip(items.tolist(), random.integers(0, 20, _RECORDS).tolist(), strict=True))


def _exchange(kind: int, item: int, answer: int) -> tuple[bytes, bytes]:
    """The bytes of a request and its response."""
    if kind == 0:
        method = b"POST" if answer < 4 else b"GET"
        status = {0: b"404 Not Found", 1: b"500 Internal Server Error"}.get(answer, b"200 OK")
        request = b"%s /shop/item/%d?page=%d HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: bench\r\n" % (
            method,
            item,
            answer,
        )
        return request, b"HTTP/1.1 %s\r\nServer: nginx\r\nContent-Type: text/html\r\nContent-Length: 612\r\n" % status
    if kind == 1:
        key = b"session:%012d" % item
        if answer < 5:
            return b"*3\r\n$3\r\nSET\r\n$20\r\n%s\r\n$3\r\nabc\r\n" % key, b"+OK\r\n"
        command = b"HGETALL" if answer < 8 else b"GET"
        return b"*2\r\n$%d\r\n%s\r\n$20\r\n%s\r\n" % (len(command), command, key), b"$3\r\nabc\r\n"
    return struct.pack(">IIQ", 64, answer, item) + bytes(range(48)), struct.pack(">IIQ", 32, answer, item) + bytes(16)


def _set_heads(records: Records, side: str, contents: Sequence[bytes]) -> None:
    sizes = np.array([len(content) for content in contents])
    records[f"{side}_size"] = sizes
    records[f"{side}_captured"] = np.minimum(sizes, _WIDTH)
    padded = b"".join(content[:_WIDTH].ljust(_WIDTH, b"\0") for content in contents)
    records[f"{side}_head"] = np.frombuffer(padded, np.uint8).reshape(-1, _WIDTH)
