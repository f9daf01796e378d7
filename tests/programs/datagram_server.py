"""Answers each datagram with itself: PORT and the options below. Says when it is ready."""

from __future__ import annotations

import argparse
import select
import socket
import threading
import time

from many_messages import Messages


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("port", type=int)
    arguments.add_argument("--address", default="127.0.0.1")
    arguments.add_argument("--silent", action="store_true", help="read, and never answer")
    arguments.add_argument(
        "--delay", type=float, default=0.0, help="seconds from the first one on in which it reads none"
    )
    arguments.add_argument("--threads", type=int, default=1, help="that read from the socket")
    arguments.add_argument("--many", type=int, default=0, help="datagrams a call (recvmmsg, sendmmsg)")
    arguments.add_argument("--answer", help="hex; what it answers instead")
    options = arguments.parse_args()
    family = socket.AF_INET6 if ":" in options.address else socket.AF_INET
    answer = bytes.fromhex(options.answer) if options.answer else None
    with socket.socket(family, socket.SOCK_DGRAM) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        server.bind((options.address, options.port))
        print("ready", flush=True)
        select.select([server], [], [])
        time.sleep(options.delay)
        if options.many:
            serve_many(server, options.many)
        for _ in range(options.threads - 1):
            threading.Thread(target=serve, args=(server, options.silent, answer), daemon=True).start()
        serve(server, options.silent, answer)


def serve(server: socket.socket, silent: bool, answer: bytes | None) -> None:
    while True:
        data, peer = server.recvfrom(65536)
        if not silent:
            server.sendto(data if answer is None else answer, peer)


def serve_many(server: socket.socket, count: int) -> None:
    messages = Messages(count)
    while True:
        messages.send(server, messages.receive(server))


if __name__ == "__main__":
    main()
