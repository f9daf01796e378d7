"""The state machine of bpf/exchange.h, compiled for the host and driven event by event."""

from __future__ import annotations

import ctypes
import itertools
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.compiling import clang
from wirespan.receiver.kernel.btf import Btf
from wirespan.receiver.kernel.libbpf import BpfObject

ROOT = Path(__file__).parents[2]
CLIENT, SERVER = 1, 2
SENT, RECEIVED = 0, 1
IDLE, REQUEST, RESPONSE = 0, 1, 2
CLOSED, TIMEOUT = 1, 3
SEND_START_UNKNOWN, PIPELINED = 2, 4
TIMED_BY_PACKET = 1
SECOND = 1_000_000_000


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    folder = tmp_path_factory.mktemp("exchange_host")
    library, layout = folder / "exchange.so", folder / "layout.o"
    flags = [clang(), "-g", "-O1", "-Wall", "-Wextra", "-Werror", f"-I{ROOT}/bpf"]
    subprocess.run([*flags, "-shared", "-fPIC", f"{ROOT}/tests/host/exchange_host.c", "-o", library], check=True)
    subprocess.run([*flags, "-target", "bpf", "-c", f"{ROOT}/tests/host/layout.c", "-o", layout], check=True)
    return Machine(ctypes.CDLL(str(library)), BpfObject.open(layout).btf)


class Machine:
    """The compiled library and the dtypes of its structs."""

    def __init__(self, library: ctypes.CDLL, btf: Btf) -> None:
        self.library = library
        self.turns = btf.dtype("turns")
        self.output = btf.dtype("output")
        self.counters = btf.enum("counter")
        assert self.turns.itemsize == library.turns_size()
        assert self.output.itemsize == library.output_size()
        library.command_size.restype = ctypes.c_uint64

    def socket(self, role: int, sent: int = 0, received: int = 0) -> Socket:
        return Socket(self, role, sent, received)


class Socket:
    """A TCP socket as the hooks see it: the kernel's sequence numbers, and the state machine beside them."""

    def __init__(self, machine: Machine, role: int, sent: int, received: int) -> None:
        self.machine = machine
        self.now = 1000
        self.base = [0xFFFFFFF0, 0x12345678]  # the first wraps at once
        self.moved = [sent, received]
        self.outputs: list[Any] = []
        self.turns = np.zeros(1, machine.turns)
        machine.library.turns_init(
            self._turns(), role, *map(ctypes.c_uint32, self.base), ctypes.c_uint64(sent), ctypes.c_uint64(received)
        )

    def _turns(self) -> ctypes.c_void_p:
        return ctypes.c_void_p(self.turns.ctypes.data)

    def _call(self, function: str, *arguments: Any) -> Any:
        out = np.zeros(1, self.machine.output)
        getattr(self.machine.library, function)(self._turns(), *arguments, ctypes.c_void_p(out.ctypes.data))
        self.outputs.append(out[0])
        return out[0]

    def tick(self, ns: int = 10) -> ctypes.c_uint64:
        self.now += ns
        return ctypes.c_uint64(self.now)

    # the steps of which I/Os are made
    def enter(self) -> None:
        self.machine.library.send_began(self._turns(), self.tick())

    def move(self, direction: int, size: int) -> None:
        self.moved[direction] += size

    def hook(self, direction: int, payload: bytes, size: int | None = None) -> Any:
        return self._call(
            "io_returned", ctypes.c_uint8(direction), self.tick(), payload,
            ctypes.c_uint64(len(payload) if size is None else size), ctypes.c_uint32(len(payload)), self.sequence(),
        )  # fmt: skip

    def sequence(self) -> Any:
        """The kernel's sequence numbers behind the last byte that moved, by direction."""
        return (ctypes.c_uint32 * 2)(
            *((base + moved) & 0xFFFFFFFF for base, moved in zip(self.base, self.moved, strict=True))
        )

    # whole I/Os
    def send(self, payload: bytes, size: int | None = None) -> Any:
        self.enter()
        self.move(SENT, len(payload) if size is None else size)
        return self.hook(SENT, payload, size)

    def receive(self, payload: bytes, size: int | None = None) -> Any:
        self.move(RECEIVED, len(payload) if size is None else size)
        return self.hook(RECEIVED, payload, size)

    def counted(self, counter: str) -> int:
        """How much the last event counted."""
        return int(self.outputs[-1]["counts"][self.machine.counters[f"COUNT_{counter}"]])

    def arrive(self, received_to: int) -> Any:
        return self._call("arrived", ctypes.c_uint64(self.moved[RECEIVED]), ctypes.c_uint64(received_to), self.tick())

    def end(self, outcome: int = CLOSED) -> Any:
        return self._call("ended", ctypes.c_uint8(outcome), self.tick(), self.sequence())

    def quiet(self, after: int, unread: bool = False) -> Any:
        self.now += after
        return self._call(
            "quiet", self.tick(0), ctypes.c_uint64(SECOND), ctypes.c_uint64(30 * SECOND), ctypes.c_int(unread)
        )

    @property
    def phase(self) -> int:
        return int(self.turns["phase"][0])

    @property
    def exchanges(self) -> list[Any]:
        return [out["exchange"] for out in self.outputs if out["finished"]]


def heads(exchange: Any) -> tuple[bytes, bytes]:
    request = exchange["request_head"].tobytes()[: int(exchange["request_captured"])]
    return request, exchange["response_head"].tobytes()[: int(exchange["response_captured"])]


def sizes(exchange: Any) -> tuple[int, int]:
    return int(exchange["request_size"]), int(exchange["response_size"])


def test_the_next_request_ends_an_exchange(machine: Machine) -> None:
    client = machine.socket(CLIENT)
    client.send(b"ask")
    client.receive(b"answer")
    assert not client.exchanges
    client.send(b"again")
    (exchange,) = client.exchanges
    assert heads(exchange) == (b"ask", b"answer")
    assert sizes(exchange) == (3, 6)
    assert exchange["request_start"] < exchange["request_end"] < exchange["response_start"] <= exchange["response_end"]
    assert (exchange["position"], client.phase) == (0, REQUEST)


def test_a_message_of_many_ios_is_one_side_of_one_exchange(machine: Machine) -> None:
    server = machine.socket(SERVER)
    for part in (b"\0\0\0\x09", b"select ", b"1;"):
        server.receive(part)
    for _ in range(3):
        server.send(b"row", 1000)
    exchange = server.end()["exchange"]
    assert heads(exchange) == (b"\0\0\0\x09select 1;", b"row")
    assert sizes(exchange) == (13, 3000)


def test_a_head_stops_where_bytes_are_missing(machine: Machine) -> None:
    server = machine.socket(SERVER)
    server.receive(b"abc", 5)
    server.receive(b"never")
    server.send(b"x")
    assert heads(server.end()["exchange"]) == (b"abc", b"x")


def test_a_request_head_is_kept_up_to_256_bytes(machine: Machine) -> None:
    server = machine.socket(SERVER)
    server.receive(b"a" * 200)
    server.receive(b"b" * 200)
    server.send(b"c" * 100)
    request, response = heads(server.end()["exchange"])
    assert (request, response) == (b"a" * 200 + b"b" * 56, b"c" * 64)


def test_a_server_that_speaks_first_makes_no_exchange(machine: Machine) -> None:
    client = machine.socket(CLIENT)
    client.receive(b"220 ready")
    assert client.counted("MESSAGES_PUSHED") == 1
    client.send(b"EHLO")
    client.receive(b"250")
    exchange = client.end()["exchange"]
    assert heads(exchange) == (b"EHLO", b"250")


def test_an_interim_response_answers_nothing(machine: Machine) -> None:
    server = machine.socket(SERVER)
    server.receive(b"POST / HTTP/1.1\r\nExpect: 100-continue\r\n\r\n")
    server.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert server.counted("MESSAGES_INTERIM") == 1
    server.receive(b"body")
    server.send(b"HTTP/1.1 200 OK\r\n\r\n")
    exchange = server.end()["exchange"]
    assert len(server.exchanges) == 1
    assert heads(exchange)[1] == b"HTTP/1.1 200 OK\r\n\r\n"


def test_switching_protocols_is_an_answer(machine: Machine) -> None:
    server = machine.socket(SERVER)
    server.receive(b"GET /chat HTTP/1.1\r\n\r\n")
    server.send(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
    assert server.phase == RESPONSE


def test_a_request_without_answer_ends_with_the_connection(machine: Machine) -> None:
    client = machine.socket(CLIENT)
    client.send(b"ask")
    exchange = client.end(CLOSED)["exchange"]
    assert (exchange["outcome"], exchange["response_start"], sizes(exchange)) == (CLOSED, 0, (3, 0))
    assert not client.end(CLOSED)["finished"]


def test_a_quiet_response_settles_once_and_later_bytes_are_counted(machine: Machine) -> None:
    client = machine.socket(CLIENT)
    client.send(b"ask")
    client.receive(b"answer")
    assert not client.quiet(SECOND // 2)["finished"]
    assert not client.quiet(SECOND, unread=True)["finished"]
    exchange = client.quiet(SECOND)["exchange"]
    assert exchange["response_end"] < client.now - 2 * SECOND
    client.receive(b"more")
    assert client.counted("MESSAGES_CONTINUED") == 1
    assert not client.quiet(5 * SECOND)["finished"]
    client.send(b"next")
    client.receive(b"other")
    assert sizes(client.end()["exchange"]) == (4, 5)


def test_a_send_under_way_is_not_quiet(machine: Machine) -> None:
    server = machine.socket(SERVER)
    server.receive(b"ask")
    server.send(b"part")
    server.enter()
    assert not server.quiet(5 * SECOND)["finished"]
    server.move(SENT, 4)
    server.hook(SENT, b"rest")
    assert sizes(server.quiet(2 * SECOND)["exchange"]) == (3, 8)


def test_an_unanswered_request_times_out(machine: Machine) -> None:
    client = machine.socket(CLIENT)
    client.send(b"ask")
    assert not client.quiet(29 * SECOND)["finished"]
    assert client.quiet(2 * SECOND)["exchange"]["outcome"] == TIMEOUT
    client.receive(b"late")
    assert client.counted("MESSAGES_CONTINUED") == 1


def test_arrival_is_that_of_the_first_byte_of_the_request(machine: Machine) -> None:
    server = machine.socket(SERVER)
    server.arrive(4)
    first = server.now
    server.arrive(8)
    server.receive(b"12345678")
    server.send(b"ok")
    assert server.end()["exchange"]["arrived"] == first


def test_a_client_keeps_the_arrival_of_the_response(machine: Machine) -> None:
    client = machine.socket(CLIENT)
    client.send(b"ask")
    client.arrive(6)
    arrived = client.now
    client.receive(b"answer")
    assert client.end()["exchange"]["arrived"] == arrived


def test_an_arrival_that_was_not_kept_is_absent_not_wrong(machine: Machine) -> None:
    server = machine.socket(SERVER)
    full = []
    for end in (2, 4, 6, 8, 10):
        server.arrive(end)
        full.append(server.counted("ARRIVALS_FULL"))
    assert full == [0, 0, 0, 0, 1]
    server.receive(b"12345678")
    server.send(b"a")
    server.arrive(12)
    server.receive(b"90")
    assert server.exchanges[0]["arrived"] != 0
    server.send(b"b")
    assert server.end()["exchange"]["arrived"] == 0


def test_first_bytes_that_arrive_are_kept_while_a_head_may_want_them(machine: Machine) -> None:
    server = machine.socket(SERVER)
    assert server.arrive(3)["wants_head"]
    server.receive(b"ask")
    assert server.arrive(6)["wants_head"], "the head goes on"
    server.receive(b"ing" * 100, 3)
    server.arrive(1000)
    server.receive(b"x" * 994)
    assert not server.arrive(2000)["wants_head"], "the head is full"
    server.receive(b"x" * 1000)
    server.send(b"ok")
    assert server.arrive(2003)["wants_head"], "the next request"


def test_first_bytes_of_a_long_response_alone_are_kept(machine: Machine) -> None:
    client = machine.socket(CLIENT)
    client.send(b"ask")
    assert client.arrive(100)["wants_head"]
    client.receive(b"x" * 64, 100)
    client.arrive(5000)
    client.receive(b"x" * 64, 4900)
    assert not client.arrive(9000)["wants_head"]
    client.receive(b"x" * 64, 4000)
    client.send(b"ask")
    assert client.arrive(9100)["wants_head"], "the next response"


def test_first_bytes_that_nobody_has_read_yet_are_not_replaced(machine: Machine) -> None:
    server = machine.socket(SERVER)
    server.arrive(3)
    server.turns["arrivals"]["head_captured"] = 3
    assert not server.arrive(6)["wants_head"]
    server.receive(b"asking")
    server.send(b"ok")
    assert server.arrive(9)["wants_head"]


def test_no_first_bytes_are_kept_in_segment_mode(machine: Machine) -> None:
    server = machine.socket(SERVER)
    server.receive(GET * 2)
    assert not server.arrive(2 * len(GET) + 3)["wants_head"]


def test_a_send_that_is_timed_by_its_packet_has_that_time_when_another_thread_tells_of_it(machine: Machine) -> None:
    client = machine.socket(CLIENT)
    client.turns["send_started"] = TIMED_BY_PACKET
    client.move(SENT, 3)
    client.receive(b"answer")
    exchange = client.end()["exchange"]
    assert sizes(exchange) == (3, 6)
    assert exchange["request_start"] == exchange["response_end"] - 1, "what the host says of the packet"
    assert not exchange["flags"] & SEND_START_UNKNOWN


def test_two_commands_of_two_writers_whose_hooks_come_in_the_wrong_order_are_marked(machine: Machine) -> None:
    client = machine.socket(CLIENT)
    for _ in range(2):
        client.enter()
        client.move(SENT, len(GET))
    client.hook(SENT, GET)  # of the second
    assert not client.hook(SENT, GET)["segment"]
    client.receive(NIL * 2)
    (exchange,) = [client.end()["exchange"]]
    assert sizes(exchange) == (2 * len(GET), 2 * len(NIL))
    assert exchange["flags"] & PIPELINED


def test_positions_go_on_beyond_4_gib(machine: Machine) -> None:
    client = machine.socket(CLIENT)
    client.send(b"ask")
    for _ in range(5):
        client.receive(b"x", 1 << 30)
    client.send(b"again")
    client.receive(b"y")
    first, second = client.exchanges[0], client.end()["exchange"]
    assert sizes(first) == (3, 5 << 30)
    assert second["position"] == 3
    server = machine.socket(SERVER, received=5 << 32, sent=7)
    server.receive(b"ask")
    server.send(b"ok")
    assert server.end()["exchange"]["position"] == 5 << 32


NIL = b"$-1\r\n"
GET = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"


def test_single_redis_commands_stay_in_turns(machine: Machine) -> None:
    server = machine.socket(SERVER)
    for _ in range(3):
        assert not server.receive(GET)["segment"]
        server.send(b"$-1\r\n")
    assert len(server.exchanges) == 2


def test_a_pipeline_in_one_io_changes_to_segments_from_its_first_byte(machine: Machine) -> None:
    server = machine.socket(SERVER)
    server.receive(GET)
    server.send(b"$-1\r\n")
    out = server.receive(GET * 2)
    assert (out["finished"], out["segment"], out["pending"], out["segment_position"]) == (1, 1, 0, len(GET))
    assert server.send(b"$-1\r\n$-1\r\n")["segment_position"] == 5
    assert server.receive(GET)["segment_position"] == 3 * len(GET)


def test_a_second_command_before_the_answer_brings_the_first_along(machine: Machine) -> None:
    client = machine.socket(CLIENT)
    client.send(GET)
    out = client.send(GET)
    assert (out["segment"], out["segment_position"]) == (1, len(GET))
    assert heads(out["pending_exchange"])[0] == GET
    assert not client.exchanges


def test_a_large_value_over_several_ios_is_one_command(machine: Machine) -> None:
    head = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100000\r\n"
    server = machine.socket(SERVER)
    server.receive(head, 16384)
    rest = len(head) + 100_002 - 16384
    assert not server.receive(b"v" * 256, rest - 1)["segment"]
    assert not server.receive(b"\n")["segment"]
    server.send(b"+OK\r\n")
    assert sizes(server.end()["exchange"]) == (16384 + rest, 5)


def test_arrivals_travel_with_segments(machine: Machine) -> None:
    server = machine.socket(SERVER)
    server.arrive(2 * len(GET))
    time = server.now
    out = server.receive(GET * 2)
    assert out["arrivals"].tolist()[0] == (time, 0, 2 * len(GET))
    assert [entry[0] for entry in out["arrivals"].tolist()[1:]] == [0, 0, 0]


@pytest.mark.parametrize(
    ("request_bytes", "size"),
    [
        (GET, len(GET)),
        (GET * 3, len(GET)),
        (b"*1\r\n$4\r\nPING\r\n", 14),
        (b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870912\r\n", 32 + 536870912 + 2),
        (b"*2\r\n$3\r\nGET\r\n$1", 2**64 - 1),  # cut by the capture
        (b"*" + b"9" * 20, 0),
        (b"*2\r\nxxxxxxxx", 2**64 - 1),
        (b"*-1\r\n$3\r\n", 0),
        (b"*\r\n$3\r\nGET", 0),
        (b"*2\n$3\r\nGET", 0),
        (b"GET / HTTP/1.1\r\n", 0),
        (b"PING\r\n", 0),
        (b"*2\r\n", 2**64 - 1),  # the rest is read on its own
        (b"*2\r", 0),
        (b"*40\r\n" + b"$1\r\nk\r\n" * 40, 2**64 - 1),
        (b"", 0),
    ],
)
def test_the_size_of_a_command_is_told_by_its_headers(machine: Machine, request_bytes: bytes, size: int) -> None:
    assert machine.library.command_size(request_bytes, ctypes.c_uint32(min(len(request_bytes), 256))) == size


# ---- every interleaving of two I/Os -----------------------------------------------------------------------

Step = tuple[str, Callable[[Socket], Any]]


def sending(name: str, payload: bytes) -> list[Step]:
    return [
        (f"{name}.enter", lambda s: s.enter()),
        (f"{name}.move", lambda s: s.move(SENT, len(payload))),
        (f"{name}.hook", lambda s: s.hook(SENT, payload)),
    ]


def receiving(name: str, payload: bytes) -> list[Step]:
    return [
        (f"{name}.move", lambda s: s.move(RECEIVED, len(payload))),
        (f"{name}.hook", lambda s: s.hook(RECEIVED, payload)),
    ]


def interleavings(a: Sequence[Step], b: Sequence[Step], causes: tuple[str, str] | None) -> Iterator[list[Step]]:
    """Every order of the steps of two threads in which ``causes[0]`` comes before ``causes[1]``."""
    for chosen in itertools.combinations(range(len(a) + len(b)), len(a)):
        first, second = iter(a), iter(b)
        order = [next(first) if i in chosen else next(second) for i in range(len(a) + len(b))]
        names = [name for name, _ in order]
        if causes is None or names.index(causes[0]) < names.index(causes[1]):
            yield order


def play(socket: Socket, order: Sequence[Step]) -> Socket:
    for _, step in order:
        step(socket)
    return socket


def test_a_response_read_beside_the_send_of_its_request(machine: Machine) -> None:
    orders = list(interleavings(sending("w", b"ask"), receiving("r", b"answer"), ("w.move", "r.move")))
    assert len(orders) == 3
    for order in orders:
        client = play(machine.socket(CLIENT), order)
        exchange = client.end()["exchange"]
        assert len(client.exchanges) == 1
        assert sizes(exchange) == (3, 6)
        assert heads(exchange) == (b"ask", b"answer")
        assert exchange["request_start"] <= exchange["response_start"]


def test_a_request_read_beside_the_send_of_its_response(machine: Machine) -> None:
    for order in interleavings(receiving("r", b"ask"), sending("w", b"answer"), ("r.move", "w.enter")):
        server = play(machine.socket(SERVER), order)
        exchange = server.end()["exchange"]
        assert len(server.exchanges) == 1
        assert sizes(exchange) == (3, 6)
        assert heads(exchange) == (b"ask", b"answer")


def test_two_writers_of_one_request(machine: Machine) -> None:
    for order in interleavings(sending("a", b"abc"), sending("b", b"defg"), None):
        client = play(machine.socket(CLIENT), order)
        client.receive(b"ok")
        exchange = client.end()["exchange"]
        assert len(client.exchanges) == 1
        assert sizes(exchange) == (7, 2)


def test_two_readers_of_one_response(machine: Machine) -> None:
    for order in interleavings(receiving("a", b"abc"), receiving("b", b"defg"), None):
        client = machine.socket(CLIENT)
        client.send(b"ask")
        play(client, order)
        assert sizes(client.end()["exchange"]) == (3, 7)


def test_the_next_request_sent_beside_the_read_of_the_response(machine: Machine) -> None:
    for order in interleavings(receiving("r", b"answer"), sending("w", b"next"), ("r.move", "w.enter")):
        client = machine.socket(CLIENT)
        client.send(b"ask")
        play(client, order)
        client.receive(b"other")
        client.end()
        assert [sizes(exchange) for exchange in client.exchanges] == [(3, 6), (4, 5)]
        assert [int(exchange["position"]) for exchange in client.exchanges] == [0, 3]


def test_the_next_request_read_beside_the_send_of_the_response(machine: Machine) -> None:
    for order in interleavings(sending("w", b"answer"), receiving("r", b"next"), ("w.move", "r.move")):
        server = machine.socket(SERVER)
        server.receive(b"ask")
        play(server, order)
        server.send(b"other")
        server.end()
        assert [sizes(exchange) for exchange in server.exchanges] == [(3, 6), (4, 5)]


def test_an_early_response_does_not_split_the_request(machine: Machine) -> None:
    client = machine.socket(CLIENT)
    client.enter()
    client.move(SENT, 1000)
    client.arrive(5)
    client.receive(b"early")
    client.move(SENT, 2000)
    client.receive(b"!")
    client.hook(SENT, b"upload", 3000)
    assert sizes(client.end()["exchange"]) == (3000, 6)
    assert len(client.exchanges) == 1


def test_arrivals_decide_which_of_two_threads_came_first(machine: Machine) -> None:
    orders = list(interleavings(receiving("r", b"second"), sending("w", b"next"), ("w.move", "r.move")))
    for order in orders:
        client = machine.socket(CLIENT)
        client.send(b"ask")
        client.receive(b"first")
        for name, step in order:
            if name == "r.move":
                client.arrive(11)
            step(client)
        client.end()
        assert [sizes(exchange) for exchange in client.exchanges] == [(3, 5), (4, 6)]


def test_bytes_that_move_without_a_hook_join_the_turn_and_disturb_nothing_after_it(machine: Machine) -> None:
    server = machine.socket(SERVER)
    server.arrive(104)
    server.receive(b"head")
    server.move(RECEIVED, 100)  # spliced into a file
    server.send(b"ok")
    for _ in range(3):
        server.receive(b"GET")
        server.send(b"done")
    server.end()
    assert [sizes(exchange) for exchange in server.exchanges] == [(104, 2), (3, 4), (3, 4), (3, 4)]
    assert [heads(exchange) for exchange in server.exchanges[1:]] == [(b"GET", b"done")] * 3
    assert [int(exchange["position"]) for exchange in server.exchanges] == [0, 104, 107, 110]


def test_a_response_that_is_spliced_away_belongs_to_its_request(machine: Machine) -> None:
    client = machine.socket(CLIENT)
    client.send(b"one")
    client.receive(b"head")
    client.move(RECEIVED, 5000)
    client.send(b"two")
    client.receive(b"2")
    client.move(RECEIVED, 7)
    client.end()
    assert [sizes(exchange) for exchange in client.exchanges] == [(3, 5004), (3, 8)]
    assert [heads(exchange) for exchange in client.exchanges] == [(b"one", b"head"), (b"two", b"2")]


def test_a_lost_hook_costs_its_payload_alone(machine: Machine) -> None:
    for order in interleavings(sending("w", b"ask")[:2], receiving("r", b"answer"), ("w.move", "r.move")):
        client = play(machine.socket(CLIENT), order)
        for _ in range(2):
            client.send(b"next")
            client.receive(b"other")
        client.end()
        assert [sizes(exchange) for exchange in client.exchanges] == [(3, 6), (4, 5), (4, 5)]
        assert [heads(exchange) for exchange in client.exchanges[1:]] == [(b"next", b"other")] * 2


def test_a_pipeline_whose_hook_is_late_changes_to_segments_or_is_marked(machine: Machine) -> None:
    for order in interleavings(sending("w", GET * 2), receiving("r", NIL), ("w.move", "r.move")):
        client = play(machine.socket(CLIENT), order)
        segments = [int(out["segment_position"]) for out in client.outputs if out["segment"]]
        client.end()
        if segments:
            assert 0 in segments
        else:
            (exchange,) = client.exchanges
            assert exchange["flags"] & PIPELINED


def test_an_interim_response_of_any_length_answers_nothing(machine: Machine) -> None:
    server = machine.socket(SERVER)
    server.receive(b"GET / HTTP/1.1\r\n\r\n")
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload; as=style\r\n\r\n"
    server.send(hints)
    assert server.counted("MESSAGES_INTERIM") == 1
    server.send(b"HTTP/1.1 500 Internal Server Error\r\n\r\n")
    assert heads(server.end()["exchange"])[1].startswith(b"HTTP/1.1 500")


def test_an_interim_response_with_its_answer_behind_it_is_the_answer(machine: Machine) -> None:
    client = machine.socket(CLIENT)
    client.send(b"PUT / HTTP/1.1\r\n\r\nbody")
    client.receive(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n")
    assert len(client.exchanges) == 0
    assert client.phase == RESPONSE


def test_a_pipeline_sent_beside_the_read_of_an_answer_loses_no_byte(machine: Machine) -> None:
    for order in interleavings(sending("w", GET * 2), receiving("r", b"$-1\r\n"), None):
        client = machine.socket(CLIENT)
        client.send(GET)
        client.send(GET)  # overlaps: segments from here on
        play(client, order)
        segments = [(int(o["segment_position"]), int(o["segment_size"])) for o in client.outputs if o["segment"]]
        assert sorted(segments) == sorted([(len(GET), len(GET)), (2 * len(GET), 2 * len(GET)), (0, 5)])
