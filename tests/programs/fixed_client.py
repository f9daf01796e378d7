"""Asks a server of fixed_server.py: each connection in a thread of its own, or in a writer and a reader thread.

Requests are sent ``--pipeline`` at a time. A connection waits for their responses before it sends the next ones; with
two threads up to ``--window`` pipelines may be under way.
"""

from __future__ import annotations

import argparse
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from threading import Semaphore, Thread

ZEROS = 64 << 20


def main() -> None:
    options = parse_options()
    with ThreadPoolExecutor(options.connections) as pool:
        for result in [pool.submit(ask, options) for _ in range(options.connections)]:
            result.result()


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("port", type=int)
    parser.add_argument("--request", type=bytes.fromhex, required=True)
    parser.add_argument("--response-size", type=int, required=True)
    parser.add_argument("--exchanges", type=int, default=1, help="of each connection")
    parser.add_argument("--pipeline", type=int, default=1)
    parser.add_argument("--window", type=int, default=1)
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--preludes", type=int, default=0)
    parser.add_argument("--prelude-body", type=int, default=0, help="zeros between head and tail of a prelude")
    parser.add_argument("--prelude-head", type=bytes.fromhex, default=b"")
    parser.add_argument("--prelude-tail", type=bytes.fromhex, default=b"")
    parser.add_argument("--two-threads", action="store_true")
    parser.add_argument("--half-close", action="store_true", help="a connection for each pipeline")
    return parser.parse_args()


def ask(options: argparse.Namespace) -> None:
    pipelines = options.exchanges // options.pipeline
    if options.half_close:
        for _ in range(pipelines):
            with socket.create_connection((options.address, options.port)) as connection:
                connection.sendall(options.request * options.pipeline)
                connection.shutdown(socket.SHUT_WR)
                receive(connection, options.response_size * options.pipeline)
                assert connection.recv(1) == b""
        return
    with socket.create_connection((options.address, options.port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        send_preludes(connection, options)
        if options.two_threads:
            ask_in_two_threads(connection, options, pipelines)
        else:
            for _ in range(pipelines):
                connection.sendall(options.request * options.pipeline)
                receive(connection, options.response_size * options.pipeline)


def ask_in_two_threads(connection: socket.socket, options: argparse.Namespace, pipelines: int) -> None:
    window = Semaphore(options.window)

    def write() -> None:
        for _ in range(pipelines):
            window.acquire()
            connection.sendall(options.request * options.pipeline)

    writer = Thread(target=write)
    writer.start()
    for _ in range(pipelines):
        receive(connection, options.response_size * options.pipeline)
        window.release()
    writer.join()


def send_preludes(connection: socket.socket, options: argparse.Namespace) -> None:
    if not options.preludes:
        return
    zeros = os.memfd_create("zeros")
    os.ftruncate(zeros, ZEROS)
    for _ in range(options.preludes):
        connection.sendall(options.prelude_head)
        left = options.prelude_body
        while left:
            left -= os.sendfile(connection.fileno(), zeros, 0, min(left, ZEROS))
        connection.sendall(options.prelude_tail)
        receive(connection, options.response_size)


def receive(connection: socket.socket, size: int) -> None:
    while size:
        data = connection.recv(min(size, 65_536))
        assert data, "the server closed the connection"
        size -= len(data)


if __name__ == "__main__":
    main()
