"""UDP in the kernel, on the host: arrivals in step with receives, and what answers what."""

from __future__ import annotations

import ctypes
import random
import subprocess
from ctypes import c_int64, c_uint16, c_uint32, c_uint64
from pathlib import Path
from typing import Any

import pytest

from support.compiling import clang

ROOT = Path(__file__).parents[2]
QUEUED = 64
NEW, REPEATED, ONE_WAY = 0, 1, 2
NONE, QUERY, RESPONSE = 0, 1, 2
MS = 1_000_000
SECOND = 1000 * MS


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    path = tmp_path_factory.mktemp("host") / "datagram.so"
    flags = ["-g", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-unused-function", f"-I{ROOT}/bpf", "-shared", "-fPIC"]
    subprocess.run([clang(), *flags, f"{ROOT}/tests/host/datagram_host.c", "-o", path], check=True)
    loaded = ctypes.CDLL(str(path))
    loaded.take.restype = loaded.ahead.restype = loaded.take_bytes.restype = loaded.take_unanswered.restype = (
        loaded.content.restype
    ) = c_uint64
    loaded.response.restype = c_int64
    return loaded


class Queue:
    """A socket's queue as its writers and readers see it."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._state = ctypes.create_string_buffer(library.datagrams_size())

    def note(self, time: int, size: int = 10) -> bool:
        return bool(self._library.note(self._state, c_uint32(size), c_uint64(time)))

    def note_from(self, port: int, time: int, size: int = 10) -> None:
        assert self._library.note_from(self._state, c_uint32(size), c_uint64(time), c_uint16(port))

    def note_bytes(self, time: int, first: int) -> None:
        assert self._library.note_bytes(self._state, c_uint64(time), c_uint64(first))

    def take_bytes(self, first: int) -> int:
        return int(self._library.take_bytes(self._state, c_uint64(first)))

    def ahead(self, port: int) -> int:
        return int(self._library.ahead(self._state, c_uint16(port)))

    def take_unanswered(self, size: int = 10) -> int:
        return int(self._library.take_unanswered(self._state, c_uint32(size)))

    def skip(self) -> None:
        self._library.skip(self._state)

    def take(self, size: int = 10) -> int:
        return int(self._library.take(self._state, c_uint32(size)))

    def balance(self, unread: int, now: int) -> None:
        self._library.balance_at(self._state, c_uint64(unread), c_uint64(now))


class Flow:
    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._state = ctypes.create_string_buffer(library.flow_size())

    def request(self, content: int, now: int) -> int:
        return int(self._library.request(self._state, c_uint64(content), c_uint64(now)))

    def again(self) -> None:
        self._library.again(self._state)

    def response(self) -> int:
        return int(self._library.response(self._state))

    @property
    def wanted_answer(self) -> bool:
        return bool(self._library.wants_answer(self._state))


@pytest.fixture
def queue(library: ctypes.CDLL) -> Queue:
    return Queue(library)


@pytest.fixture
def flow(library: ctypes.CDLL) -> Flow:
    return Flow(library)


def test_datagrams_are_read_in_the_order_of_their_arrival(queue: Queue) -> None:
    source, arrived, taken = random.Random(1), 0, 0
    for _ in range(10_000):
        if arrived - taken < QUEUED and source.random() < 0.5:
            arrived += 1
            assert queue.note(arrived)
        elif taken < arrived:
            taken += 1
            assert queue.take() == taken


def test_more_than_can_be_noted_down_are_read_without_an_entry(queue: Queue) -> None:
    assert [queue.note(time) for time in range(1, 71)] == [True] * QUEUED + [False] * 6
    assert [queue.take() for _ in range(70)] == [*range(1, QUEUED + 1), *[0] * 6]
    queue.note(71)
    assert queue.take() == 71


def test_a_datagram_that_is_read_before_its_notice_does_not_disturb_the_others(queue: Queue) -> None:
    assert queue.take() == 0
    queue.skip()
    queue.note(2)
    assert queue.take() == 2


def test_an_entry_of_fewer_bytes_than_were_read_is_another_ones(queue: Queue) -> None:
    queue.note(1, size=5)
    assert queue.take(size=6) == 0


def test_of_two_readers_whose_hooks_are_in_the_other_order_each_finds_its_datagram_by_its_size(queue: Queue) -> None:
    for time, size in ((1, 5), (2, 7), (3, 5)):
        queue.note(time, size)
    assert [queue.take(7), queue.take(5), queue.take(5)] == [2, 1, 3]


def test_each_reader_finds_its_datagram_by_its_first_bytes(queue: Queue) -> None:
    for first in (1, 2, 3, 4, 5):
        queue.note_bytes(time=first, first=first)
    assert [queue.take_bytes(first) for first in (3, 1, 4, 2, 5)] == [3, 1, 4, 2, 5]


def test_an_entry_of_other_bytes_is_not_that_of_what_was_read(queue: Queue) -> None:
    queue.note_bytes(time=1, first=7)
    queue.note_bytes(time=2, first=8)
    assert [queue.take_bytes(6), queue.take_bytes(8)] == [0, 2]


def test_a_datagram_cut_off_by_its_readers_buffer_has_its_entry(queue: Queue) -> None:
    queue.note(1, size=9)
    queue.note(2, size=8)
    assert [queue.take(5), queue.take(5)] == [1, 2]


def test_what_is_answered_before_its_hook_is_found_by_its_sender_once(queue: Queue) -> None:
    """Two readers: the second one's hook has taken the first one's entry, and the second one answers."""
    queue.note_from(1000, 1)
    queue.note_from(2000, 2)
    assert queue.take_unanswered() == 1
    assert (queue.ahead(3000), queue.ahead(1000)) == (0, 0)
    assert (queue.ahead(2000), queue.ahead(2000)) == (2, 0)
    assert queue.take_unanswered() == 0
    queue.note_from(2000, 3)
    assert queue.take_unanswered() == 3


def test_nothing_that_did_not_arrive_is_answered(queue: Queue) -> None:
    assert queue.ahead(0) == 0
    queue.note_from(1000, 1)
    assert queue.take() == 1
    assert queue.ahead(1000) == 0


def test_an_entry_whose_datagram_was_thrown_away_goes_after_a_second(queue: Queue) -> None:
    queue.note(1)
    for now in (0, SECOND // 2, SECOND):
        queue.balance(0, now)
    queue.note(2)
    assert queue.take() == 2


def test_a_reader_whose_hook_is_late_loses_nothing(queue: Queue) -> None:
    queue.note(1)
    queue.balance(0, 0)
    queue.balance(0, SECOND // 2)
    assert queue.take() == 1
    queue.balance(0, SECOND)
    queue.note(2)
    queue.balance(1, 2 * SECOND)
    assert queue.take() == 2


def test_a_lost_notice_is_made_up_for_after_10_ms(queue: Queue) -> None:
    assert queue.take() == 0
    queue.balance(0, 1)
    queue.balance(0, 1 + 10 * MS)
    queue.note(2)
    assert queue.take() == 2


def test_responses_take_requests_in_order(flow: Flow) -> None:
    assert [flow.request(content, content) for content in range(4)] == [NEW] * 4
    assert [flow.response() for _ in range(5)] == [0, 1, 2, 3, -1]


def test_requests_that_are_alike_and_follow_closely_are_several(flow: Flow) -> None:
    assert [flow.request(7, now) for now in range(3)] == [NEW] * 3


def test_the_same_again_after_a_while_is_the_same_request(flow: Flow) -> None:
    assert [flow.request(7, now * 100 * MS) for now in range(3)] == [NEW, REPEATED, REPEATED]
    assert flow.response() == 0
    assert flow.request(7, 300 * MS) == NEW


def test_the_same_again_after_its_timeout_is_a_new_request(flow: Flow) -> None:
    assert [flow.request(7, now * SECOND) for now in range(6)] == [NEW, *[REPEATED] * 5]
    flow.again()
    assert [flow.response(), flow.response()] == [1, -1]


def test_what_is_repeated_for_ever_without_any_answer_is_one_way(flow: Flow) -> None:
    flow.request(7, 0)
    assert flow.wanted_answer
    flow.again()
    assert not flow.wanted_answer


def test_a_client_that_was_held_up_between_two_requests_waits_for_both(flow: Flow) -> None:
    flow.request(1, 0)
    flow.request(2, 499 * MS)
    assert [flow.response(), flow.response()] == [0, 1]


def test_another_request_after_a_while_takes_the_next_response(flow: Flow) -> None:
    flow.request(1, 0)
    flow.request(2, 500 * MS)
    assert [flow.response(), flow.response()] == [1, -1]


def test_many_without_any_answer_are_one_way_until_one_comes(flow: Flow) -> None:
    assert [flow.request(content, content) for content in range(20)] == [NEW] * 16 + [ONE_WAY] * 4
    assert not flow.wanted_answer
    flow.response()
    assert flow.wanted_answer
    assert flow.request(21, 21) == NEW


def test_only_one_without_an_answer_may_have_wanted_one(flow: Flow) -> None:
    flow.request(1, 0)
    assert flow.wanted_answer
    flow.request(2, SECOND)
    assert not flow.wanted_answer


HEADER = bytes.fromhex("123401000001000000000000")
QUESTION = bytes.fromhex("0000010001")


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (HEADER + QUESTION, QUERY),
        (HEADER + QUESTION[:4], NONE),
        (HEADER[:11], NONE),
        (HEADER.replace(b"\1\0\0\1", b"\x81\x80\0\1") + QUESTION, RESPONSE),
        (HEADER.replace(b"\1\0\0\1", b"\x81\x81\0\0"), RESPONSE),
        (HEADER.replace(b"\1\0\0\1", b"\x81\x80\0\0"), NONE),
        (HEADER.replace(b"\1\0\0\1", b"\1\0\0\2") + QUESTION, NONE),
        (HEADER.replace(b"\1\0\0\1\0\0", b"\1\0\0\1\0\1") + QUESTION, NONE),
        (bytes(64), NONE),
    ],
)
def test_dns_is_told_by_its_header(library: ctypes.CDLL, data: bytes, kind: int) -> None:
    assert library.kind_of_dns(data, c_uint32(len(data))) == kind


def test_random_bytes_are_neither_dns_nor_quic(library: ctypes.CDLL) -> None:
    source = random.Random(2)
    for _ in range(50_000):
        data = source.randbytes(32)
        assert library.kind_of_dns(data, c_uint32(32)) != QUERY
        assert not library.quic(data, c_uint32(32), c_uint32(1200))


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ("c000000001", True),
        ("e06b3343cf", True),
        ("c0ff00001d", True),
        ("c000000000", False),
        ("c00000000115", False),
        ("4000000001", False),
        ("c012345678", False),
    ],
)
def test_quic_is_told_by_a_long_header_of_a_version_in_use(library: ctypes.CDLL, start: str, expected: bool) -> None:
    data = bytes.fromhex(start) + bytes(20)
    assert bool(library.quic(data, c_uint32(len(data)), c_uint32(1200))) is expected
    assert not library.quic(data, c_uint32(len(data)), c_uint32(1199)), "no connection begins with so few bytes"


def test_no_query_of_dns_is_taken_for_quic(library: ctypes.CDLL) -> None:
    """Not even one from a resolver to an authoritative server, whose flags are 0."""
    for number in range(1 << 16):
        data = number.to_bytes(2, "big") + bytes.fromhex("00000001000000000000010001")
        assert not library.quic(data, c_uint32(len(data)), c_uint32(len(data)))


def test_the_content_of_a_datagram_is_its_first_bytes_and_its_size(library: ctypes.CDLL) -> None:
    def content(data: bytes, size: int) -> Any:
        return library.content(data, c_uint32(len(data)), c_uint32(size))

    assert content(b"a" * 64, 64) == content(b"a" * 64, 64)
    assert len({content(b"a" * 64, 64), content(b"a" * 64, 65), content(b"a" * 63 + b"b", 64), content(b"", 0)}) == 4
