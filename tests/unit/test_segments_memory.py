"""Segment mode keeps times and no bytes, and those only as long as an exchange to come may need them."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest

from support.segments import GET, RECEIVED, SENT, Reader

SUBSCRIBE = b"*2\r\n$9\r\nSUBSCRIBE\r\n$1\r\nc\r\n"
CONFIRMED = b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n"
PUSH = b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1000\r\n" + b"x" * 1000 + b"\r\n"
PSYNC = b"*3\r\n$5\r\nPSYNC\r\n$1\r\n?\r\n$2\r\n-1\r\n"
SILENCE = b"*3\r\n$6\r\nCLIENT\r\n$5\r\nREPLY\r\n$3\r\nOFF\r\n"


def growth_of(work: Callable[[], None]) -> int:
    """Bytes that are allocated in Python after this work and were not before."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        work()
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("first", "answer", "direction", "data"),
    [
        (SUBSCRIBE, CONFIRMED, RECEIVED, PUSH),
        (PSYNC, b"+FULLRESYNC 1 0\r\n", RECEIVED, PUSH),
        (PSYNC, b"+FULLRESYNC 1 0\r\n", SENT, GET),
        (SILENCE, b"", SENT, GET),
        (b"\x16\x03\x01", b"\x16\x03\x01", RECEIVED, PUSH),
        (b"\x16\x03\x01", b"\x16\x03\x01", SENT, b"\x17" * 1000),
        (GET, b"", RECEIVED, b""),
    ],
    ids=["pushes", "replication", "acknowledgements", "replies off", "lost replies", "lost requests", "gaps"],
)
def test_io_that_belongs_to_no_exchange_leaves_nothing_behind(
    first: bytes, answer: bytes, direction: int, data: bytes
) -> None:
    reader = Reader()
    opening = [reader.io(SENT, 0, first, 1000)] + [reader.io(RECEIVED, 0, answer, 1500)] * bool(answer)
    reader.read(*opening)
    size = len(data) or 1000
    begin = len(first) if direction == SENT else len(answer)

    def read_all() -> None:
        for at in range(0, 5000, 100):
            reader.read(
                *(reader.io(direction, begin + i * size, data, 2000 + i, size=size) for i in range(at, at + 100)),
            )

    assert growth_of(read_all) < 50_000
    assert reader.io_kept() <= 1


def test_pipelined_requests_without_an_answer_keep_their_times_and_no_bytes() -> None:
    reader = Reader()
    value = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1000\r\n" + b"x" * 1000 + b"\r\n"

    def read_all() -> None:
        for at in range(0, 4000, 100):
            reader.read(*(reader.io(SENT, i * len(value), value, 2000 + i, tgid=7) for i in range(at, at + 100)))

    assert growth_of(read_all) < 2_000_000
    assert reader.io_kept() == 4000
    rows, _ = reader.read(reader.io(RECEIVED, 0, b"+OK\r\n" * 4000, 10**6))
    assert rows["request_start"].tolist() == [2000 + i for i in range(4000)]


def test_a_long_value_keeps_the_times_of_its_first_io_until_it_is_answered() -> None:
    reader = Reader()
    head = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$3000\r\n"
    parts = [reader.io(SENT, len(head) + i * 1000, b"x" * 1000, 2000 + i) for i in range(3)]
    end = len(head) + 3000
    rows, _ = reader.read(reader.io(SENT, 0, head, 1000), *parts, reader.io(SENT, end, b"\r\n", 3000))
    assert reader.io_kept() == 5
    rows, _ = reader.read(reader.io(RECEIVED, 0, b"+O", 4000), reader.io(RECEIVED, 2, b"K\r\n", 5000))
    assert (rows["request_start"][0], rows["request_end"][0]) == (1000, 3010)
    assert (rows["response_start"][0], rows["response_end"][0]) == (4000, 5000)
    assert reader.io_kept() == 0
