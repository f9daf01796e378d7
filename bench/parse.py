"""How long parsers take: ``.venv/bin/python bench/parse.py``.

Turn mode: recognising and summarising the heads of one exchange, which is done for every record of the kernel. Segment
mode: an exchange of a pipeline, 16 commands an I/O. The fastest of several rounds is printed, in microseconds an
exchange; the spread to the median says how quiet the machine was.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import click

from wirespan.receiver.protocols.parser import Parser, SegmentParser
from wirespan.receiver.protocols.registry import HTTP1_PARSER, RESP_PARSER, recognise

HTTP_REQUEST = b"GET /api/users?page=2 HTTP/1.1\r\nHost: localhost:8080\r\nUser-Agent: h2load nghttp2/1.52.0\r\n\r\n"
HTTP_RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n<html>ok</html>"
SET = b"*3\r\n$3\r\nSET\r\n$16\r\nkey:000000000012\r\n$5\r\nvalue\r\n"
GET = b"*2\r\n$3\r\nGET\r\n$16\r\nkey:000000000012\r\n"
BINARY = b"\x00\x00\x00\x20" + bytes(range(32))

PIPELINE = 16
Measured = Callable[[int], None]


def summarising(parser: Parser, request: bytes, response: bytes) -> Measured:
    def run(exchanges: int) -> None:
        summarise = parser.summarise
        for _ in range(exchanges):
            summarise(request, response)

    return run


def recognising(request: bytes, response: bytes) -> Measured:
    def run(exchanges: int) -> None:
        for _ in range(exchanges):
            recognise(request, response)

    return run


def pipelining(parser: SegmentParser, request: bytes, response: bytes) -> Measured:
    requests, responses = request * PIPELINE, response * PIPELINE

    def run(exchanges: int) -> None:
        connection = parser.connection()
        for turn in range(exchanges // PIPELINE):
            connection.feed_request(turn * len(requests), requests, len(requests))
            found = connection.feed_response(turn * len(responses), responses, len(responses))
            assert len(found) == PIPELINE

    return run


CASES: dict[str, Measured] = {
    "HTTP    recognise": recognising(HTTP_REQUEST, HTTP_RESPONSE),
    "HTTP    summarise": summarising(HTTP1_PARSER, HTTP_REQUEST, HTTP_RESPONSE),
    "Redis   recognise": recognising(SET, b"+OK\r\n"),
    "Redis   summarise": summarising(RESP_PARSER, SET, b"+OK\r\n"),
    "Redis   pipeline, SET": pipelining(RESP_PARSER, SET, b"+OK\r\n"),
    "Redis   pipeline, GET": pipelining(RESP_PARSER, GET, b"$5\r\nvalue\r\n"),
    "unknown recognise": recognising(BINARY, BINARY),
}


def microseconds(run: Measured, exchanges: int, rounds: int) -> list[float]:
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        run(exchanges)
        times.append((time.perf_counter() - begin) / exchanges * 1e6)
    return times


@click.command(help=__doc__)
@click.option("--exchanges", default=8_000, show_default=True, help="Exchanges a round.")
@click.option("--rounds", default=15, show_default=True)
def main(exchanges: int, rounds: int) -> None:
    for name, run in CASES.items():
        times = microseconds(run, exchanges, rounds)
        click.echo(f"{name:22} {min(times):6.2f} us (median {statistics.median(times):.2f})")


if __name__ == "__main__":
    main()
