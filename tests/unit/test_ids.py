"""Ids of exchanges: the agent, bpf/siphash.h and a plain Python SipHash agree on the same vectors.

The plain implementation below follows the SipHash paper and is itself held to published SipHash-2-4 vectors and to
the SipHash-1-3 of the interpreter. ``python tests/unit/test_ids.py`` writes the vectors file again.
"""

from __future__ import annotations

import ctypes
import ipaddress
import json
import random
import subprocess
import sys
import uuid
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wirespan.native.library import RecordsStruct, addresses, records_of
from wirespan.receiver.ids import DEFAULT_KEY, IdSource, boot_id
from wirespan.receiver.kernel.btf import shortened
from wirespan.receiver.kernel.libbpf import BpfObject
from wirespan.receiver.kernel.session import REQUEST_HEAD_SHORT, object_path

ROOT = Path(__file__).parents[2]
VECTORS = ROOT / "tests" / "vectors" / "siphash.json"
MASK = (1 << 64) - 1
PAPER_KEY = bytes(range(16))
BOOT = 0x0123456789ABCDEF


def rotate(value: int, bits: int) -> int:
    return (value << bits | value >> (64 - bits)) & MASK


def sip_round(v: list[int]) -> None:
    v[0] = (v[0] + v[1]) & MASK
    v[2] = (v[2] + v[3]) & MASK
    v[1] = rotate(v[1], 13) ^ v[0]
    v[3] = rotate(v[3], 16) ^ v[2]
    v[0] = rotate(v[0], 32)
    v[2] = (v[2] + v[1]) & MASK
    v[0] = (v[0] + v[3]) & MASK
    v[1] = rotate(v[1], 17) ^ v[2]
    v[3] = rotate(v[3], 21) ^ v[0]
    v[2] = rotate(v[2], 32)


def siphash(c: int, d: int, key: bytes, message: bytes, outputs: int = 0) -> list[int]:
    """The 64-bit hash, or with ``outputs`` the first of the extended 128-bit variant."""
    k0, k1 = (int.from_bytes(key[i : i + 8], "little") for i in (0, 8))
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]
    if outputs:
        v[1] ^= 0xEE
    padded = message + bytes(7 - len(message) % 8) + bytes([len(message) & 0xFF])
    for at in range(0, len(padded), 8):
        word = int.from_bytes(padded[at : at + 8], "little")
        v[3] ^= word
        for _ in range(c):
            sip_round(v)
        v[0] ^= word
    results = []
    for register, constant in ((2, 0xEE), (1, 0xDD), (1, 0xCC), (1, 0xBB))[: outputs or 1]:
        v[register] ^= constant if outputs else 0xFF
        for _ in range(d):
            sip_round(v)
        results.append(v[0] ^ v[1] ^ v[2] ^ v[3])
    return results


def packed(address: str) -> bytes:
    """16 bytes in network order, IPv4 as ::ffff:a.b.c.d."""
    parsed = ipaddress.ip_address(address)
    return parsed.packed if parsed.version == 6 else bytes(10) + b"\xff\xff" + parsed.packed


def plain_ids(exchange: dict[str, Any]) -> list[int]:
    """The four outputs for an exchange, by the definition in receiver/ids.py."""
    parsed = ipaddress.IPv6Address(packed(exchange["client_address"]))
    loopback = (parsed.ipv4_mapped or parsed).is_loopback
    scope = exchange["netns"] ^ exchange["boot_id"] if loopback else 0
    words = exchange["sequence"] << 16 | exchange["client_port"], exchange["position"], scope
    message = parsed.packed + b"".join(word.to_bytes(8, "little") for word in words)
    return siphash(1, 3, bytes.fromhex(exchange["key"]), message, outputs=4)


def exchange(address: str, port: int = 40000, **other: int | str) -> dict[str, Any]:
    values = {"sequence": 1, "position": 0, "netns": 4026531840, "boot_id": BOOT, "key": DEFAULT_KEY.hex()}
    return {"client_address": address, "client_port": port, **values, **other}


@cache
def record_dtype() -> np.dtype[np.void]:
    with BpfObject.open(object_path()) as programs:
        return programs.btf.dtype("exchange")


def records(exchanges: Sequence[dict[str, Any]], is_server: bool = False) -> np.ndarray:
    """The kernel's records of these exchanges, made at the client's or the server's end."""
    found = np.zeros(len(exchanges), record_dtype())
    for record, row in zip(found, exchanges, strict=True):
        connection = record["connection"]
        connection["role"] = 2 if is_server else 1
        end = "remote" if is_server else "local"
        connection[f"{end}_address"] = np.frombuffer(packed(row["client_address"]), np.uint8)
        connection[f"{end}_port"], connection["netns"] = row["client_port"], row["netns"]
        connection["sequence"] = (row["sequence"] - row["position"]) % 2**32
        record["position"] = row["position"]
    return found


def ids_of(*exchanges: dict[str, Any], is_server: bool = False) -> tuple[list[list[int]], list[int], list[int]]:
    """Trace ids, client and server span ids of exchanges with one key and boot id, by the code under test."""
    source = IdSource(bytes.fromhex(exchanges[0]["key"]), exchanges[0]["boot_id"])
    trace_id, client, server = source.of_records(records(exchanges, is_server))
    return trace_id.tolist(), client.tolist(), server.tolist()


def make_vectors() -> dict[str, list[dict[str, Any]]]:
    """Vectors from the plain implementation; 64-bit numbers and keys are hexadecimal."""
    chance = random.Random(13)
    hashes = [
        {"key": key.hex(), "words": [f"{word:016x}" for word in words]}
        for n in range(8)
        for key, words in (
            (PAPER_KEY, [int.from_bytes(bytes(range(8 * i, 8 * i + 8)), "little") for i in range(n)]),
            (chance.randbytes(16), [chance.getrandbits(64) for _ in range(n)]),
        )
    ]
    for vector in hashes:
        message = b"".join(int(word, 16).to_bytes(8, "little") for word in vector["words"])
        outputs = siphash(1, 3, bytes.fromhex(str(vector["key"])), message, outputs=4)
        vector["outputs"] = [f"{output:016x}" for output in outputs]
    addresses = ["10.1.2.3", "127.0.0.1", "127.255.255.254", "126.255.255.255", "128.0.0.1", "::1", "::2", "::"]
    addresses += ["2001:db8::1", "fe80::1", "::127.0.0.1", "1::1", "0:0:0:1::1"]
    exchanges = [exchange(address) for address in addresses]
    for address in ("192.0.2.1", "127.0.0.1"):
        exchanges.append(exchange(address, 65535, sequence=2**32 - 1, position=MASK, netns=2**32 - 1, boot_id=MASK))
        exchanges.append(exchange(address, 0, sequence=0, netns=0, boot_id=0, key=PAPER_KEY.hex()))
    for vector in exchanges:
        low, high, client, server = plain_ids(vector)
        vector |= {
            "trace_id": f"{high:016x}{low:016x}",
            "client_span": f"{client:016x}",
            "server_span": f"{server:016x}",
        }
        vector |= {name: f"{vector[name]:016x}" for name in ("position", "boot_id")}
    return {"hashes": hashes, "exchanges": exchanges}


def hash_vectors() -> list[dict[str, Any]]:
    return list(json.loads(VECTORS.read_text())["hashes"])


def exchange_vectors() -> list[dict[str, Any]]:
    """With ``position`` and ``boot_id`` as numbers again."""
    vectors = json.loads(VECTORS.read_text())["exchanges"]
    return [{**vector, **{name: int(vector[name], 16) for name in ("position", "boot_id")}} for vector in vectors]


def compiled(source: Path, folder: Path) -> ctypes.CDLL:
    library = folder / source.with_suffix(".so").name
    includes = [f"-I{ROOT / path}" for path in ("bpf", "wirespan/native")]
    subprocess.run(
        ["cc", "-O2", "-Wall", "-Wextra", "-Werror", *includes, "-shared", "-fPIC", source, "-o", library], check=True
    )
    return ctypes.CDLL(str(library))


@pytest.fixture(scope="module")
def header(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """bpf/siphash.h compiled for the host."""
    loaded = compiled(ROOT / "tests" / "host" / "siphash_host.c", tmp_path_factory.mktemp("siphash"))
    loaded.trace_low56.restype = ctypes.c_uint64
    return loaded


def words_in_c(words: list[int] | bytes) -> ctypes.Array[ctypes.c_uint64]:
    raw = words if isinstance(words, bytes) else b"".join(word.to_bytes(8, "little") for word in words)
    return (ctypes.c_uint64 * (len(raw) // 8)).from_buffer_copy(raw)


@pytest.mark.parametrize(
    ("size", "expected"), [(0, 0x726FDB47DD0E0E31), (15, 0xA129CA6149BE45E5), (40, 0x0E3EA96B5304A7D0)]
)
def test_the_plain_implementation_gives_the_published_siphash_2_4(size: int, expected: int) -> None:
    assert siphash(2, 4, PAPER_KEY, bytes(range(size))) == [expected]


def test_the_plain_implementation_gives_the_published_siphash_2_4_of_128_bits() -> None:
    low, high = siphash(2, 4, PAPER_KEY, b"", outputs=2)
    assert (low.to_bytes(8, "little") + high.to_bytes(8, "little")).hex() == "a3817f04ba25a8e66df67214c7550293"


@pytest.mark.skipif(sys.hash_info.algorithm != "siphash13", reason="this interpreter hashes otherwise")
def test_the_plain_implementation_gives_the_siphash_1_3_of_the_interpreter() -> None:
    messages = [bytes(range(size)) for size in range(1, 42)]
    program = "import sys; print([hash(bytes(range(size))) for size in range(1, 42)])"
    # PYTHONHASHSEED=0 is a key of zeros.
    output = subprocess.check_output([sys.executable, "-c", program], env={"PYTHONHASHSEED": "0"}, text=True)
    assert [value & MASK for value in json.loads(output)] == [siphash(1, 3, bytes(16), m)[0] for m in messages]


def test_the_vectors_file_is_what_the_plain_implementation_gives() -> None:
    assert json.loads(VECTORS.read_text()) == make_vectors()


def test_c_gives_the_vectors(header: ctypes.CDLL) -> None:
    for vector in hash_vectors():
        words = [int(word, 16) for word in vector["words"]]
        outputs = (ctypes.c_uint64 * 4)()
        header.siphash13(words_in_c(bytes.fromhex(vector["key"])), words_in_c(words), len(words), outputs)
        assert [f"{output:016x}" for output in outputs] == vector["outputs"]


@pytest.mark.parametrize("is_server", [False, True])
def test_the_agent_gives_the_ids_of_the_vectors_at_either_end(is_server: bool) -> None:
    for vector in exchange_vectors():
        [(high, low)], [client], [server] = ids_of(vector, is_server=is_server)
        assert f"{high:016x}{low:016x}" == vector["trace_id"]
        assert (f"{client:016x}", f"{server:016x}") == (vector["client_span"], vector["server_span"])


def test_c_gives_the_low_56_bits_of_the_trace_id(header: ctypes.CDLL) -> None:
    for vector in exchange_vectors():
        low = header.trace_low56(
            words_in_c(bytes.fromhex(vector["key"])),
            words_in_c(packed(vector["client_address"])),
            ctypes.c_uint16(vector["client_port"]),
            ctypes.c_uint32(vector["sequence"]),
            ctypes.c_uint64(vector["position"]),
            ctypes.c_uint32(vector["netns"]),
            ctypes.c_uint64(vector["boot_id"]),
        )
        assert f"{low:014x}" == vector["trace_id"][-14:]


def test_rows_do_not_influence_each_other() -> None:
    rows = [exchange("10.0.0.1"), exchange("127.0.0.1"), exchange("2001:db8::1"), exchange("::1")]
    together = ids_of(*rows)
    for column, alone in zip(together, zip(*(ids_of(row) for row in rows), strict=True), strict=True):
        assert column == [value for values in alone for value in values]


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.8.7", "::1"])
def test_a_loopback_client_is_told_apart_by_namespace_and_boot(address: str) -> None:
    here = ids_of(exchange(address))
    assert ids_of(exchange(address, netns=4026532000)) != here
    assert ids_of(exchange(address, boot_id=BOOT + 1)) != here


@pytest.mark.parametrize("address", ["10.0.0.1", "126.255.255.255", "128.0.0.0", "::127.0.0.1", "2001:db8::1", "::"])
def test_other_clients_have_the_same_ids_on_every_node_and_in_every_namespace(address: str) -> None:
    assert ids_of(exchange(address, netns=7, boot_id=9)) == ids_of(exchange(address))


@pytest.mark.parametrize(
    "change", [{"port": 40001}, {"sequence": 2}, {"position": 2**32}, {"key": PAPER_KEY.hex()}, {"address": "10.0.0.2"}]
)
def test_everything_that_names_an_exchange_changes_every_id(change: dict[str, Any]) -> None:
    one, other = ids_of(exchange("10.0.0.1")), ids_of(exchange(**{"address": "10.0.0.1", **change}))
    assert all(a != b for a, b in zip(one, other, strict=True))


def test_an_id_that_comes_out_as_zero_is_one_and_the_low_half_stays(tmp_path: Path) -> None:
    native = compiled(ROOT / "tests" / "host" / "ids_host.c", tmp_path)
    trace, client, server = np.full(2, 9, np.uint64), np.full(1, 9, np.uint64), np.full(1, 9, np.uint64)
    one, key = records([exchange("10.0.0.1")]), np.zeros(2, np.uint64)
    arguments = (ctypes.byref(records_of(one)), *addresses(key), 0, *addresses(trace, client, server))
    native.exchange_ids.argtypes = [ctypes.POINTER(RecordsStruct), *[ctypes.c_void_p] * 5]
    native.exchange_ids(*arguments)
    assert (trace.tolist(), client.tolist(), server.tolist()) == ([1, 0], [1], [1])


def test_no_id_comes_twice_and_the_low_bits_are_uniform() -> None:
    n = 50_000
    many = np.repeat(records([exchange("10.0.0.1")]), n)
    many["position"] = np.arange(n)
    trace, client, server = IdSource(DEFAULT_KEY, BOOT).of_records(many)
    assert len(np.unique(np.concatenate([trace[:, 1], client, server]))) == 3 * n
    kept = np.count_nonzero((trace[:, 1] & np.uint64(2**56 - 1)) < np.uint64(2**56 // 10))
    assert abs(kept - n / 10) < 5 * (n * 0.09) ** 0.5


def test_an_empty_batch_has_no_ids() -> None:
    trace, client, server = IdSource(DEFAULT_KEY, BOOT).of_records(records([]))
    assert trace.shape == (0, 2)
    assert len(client) == len(server) == 0


def test_records_of_the_short_ring_and_every_second_record_have_the_same_ids() -> None:
    whole = records([exchange("10.0.0.1", port) for port in range(40000, 40004)])
    expected, *_ = IdSource(DEFAULT_KEY, BOOT).of_records(whole)
    short = np.zeros(4, shortened(record_dtype(), REQUEST_HEAD_SHORT))
    for name in short.dtype.names[:-1]:
        short[name] = whole[name]
    assert IdSource(DEFAULT_KEY, BOOT).of_records(short)[0].tolist() == expected.tolist()
    assert IdSource(DEFAULT_KEY, BOOT).of_records(whole[::2])[0].tolist() == expected[::2].tolist()


def test_a_key_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="16 bytes, not 3"):
        IdSource(b"key", BOOT)


def test_the_boot_id_is_folded_to_64_bits(tmp_path: Path) -> None:
    folder = tmp_path / "sys" / "kernel" / "random"
    folder.mkdir(parents=True)
    (folder / "boot_id").write_text(f"{uuid.UUID(int=0xF0 << 64 | 0x0F)}\n")
    assert boot_id(tmp_path) == 0xFF
    assert 0 < boot_id() <= MASK


if __name__ == "__main__":
    VECTORS.write_text(json.dumps(make_vectors(), indent=1) + "\n")
