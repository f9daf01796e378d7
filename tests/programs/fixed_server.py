"""Answers every request of a fixed size with the same bytes: a server of any protocol whose messages do not vary.

A connection may begin with preludes, requests too large to be kept: they are discarded in the kernel. Each connection
is served by a thread of its own, or by a reader and a writer thread.
"""

from __future__ import annotations

import argparse
import socket
from collections.abc import Iterator
from queue import SimpleQueue
from threading import Thread

from accepting import serve_each_in_a_thread

HEAD_SIZE = 4096
DISCARD_SIZE = 4 << 20


def main() -> None:
    options = parse_options()
    family = socket.AF_INET6 if ":" in options.address else socket.AF_INET
    dual_stack = options.address == "::"
    address = (options.address, options.port)
    server = socket.create_server(address, family=family, backlog=4096, dualstack_ipv6=dual_stack)
    serve_each_in_a_thread(server, lambda connection: serve(connection, options))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--address", default="127.0.0.1", help=":: is also reached over IPv4")
    parser.add_argument("--request-size", type=int, required=True)
    parser.add_argument("--response", type=bytes.fromhex, required=True)
    parser.add_argument("--preludes", type=int, default=0)
    parser.add_argument("--prelude-size", type=int, default=0)
    parser.add_argument("--answer-at-end", action="store_true", help="when the client has closed its half")
    parser.add_argument("--two-threads", action="store_true")
    return parser.parse_args()


def serve(connection: socket.socket, options: argparse.Namespace) -> None:
    with connection:
        for _ in range(options.preludes):
            if not discard(connection, options.prelude_size):
                return
            connection.sendall(options.response)
        requests = complete_requests(connection, options.request_size)
        if options.answer_at_end:
            connection.sendall(options.response * sum(requests))
        elif options.two_threads:
            answer_in_another_thread(connection, options.response, requests)
        else:
            for count in requests:
                connection.sendall(options.response * count)


def discard(connection: socket.socket, size: int) -> bool:
    """Read the head, and let the kernel discard the rest. False if the stream ends before."""
    buffer = bytearray(DISCARD_SIZE)
    count = connection.recv_into(buffer, min(size, HEAD_SIZE))
    size -= count
    while size and count:
        count = connection.recv_into(buffer, min(size, DISCARD_SIZE), socket.MSG_TRUNC)
        size -= count
    return size == 0


def complete_requests(connection: socket.socket, size: int) -> Iterator[int]:
    """How many requests each read completes, until the end of the stream."""
    have = 0
    while data := connection.recv(65_536):
        count, have = divmod(have + len(data), size)
        if count:
            yield count


def answer_in_another_thread(connection: socket.socket, response: bytes, requests: Iterator[int]) -> None:
    counts: SimpleQueue[int] = SimpleQueue()

    def write() -> None:
        while count := counts.get():
            connection.sendall(response * count)

    writer = Thread(target=write)
    writer.start()
    for count in requests:
        counts.put(count)
    counts.put(0)
    writer.join()


if __name__ == "__main__":
    main()
