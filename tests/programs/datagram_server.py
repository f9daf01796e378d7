"""Answers each datagram with itself: PORT [--address A] [--silent] [--delay S]. Says when it is ready."""

from __future__ import annotations

import argparse
import socket
import time


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("port", type=int)
    arguments.add_argument("--address", default="127.0.0.1")
    arguments.add_argument("--silent", action="store_true", help="read, and never answer")
    arguments.add_argument("--delay", type=float, default=0.0, help="seconds before it reads the first one")
    options = arguments.parse_args()
    family = socket.AF_INET6 if ":" in options.address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        server.bind((options.address, options.port))
        print("ready", flush=True)
        time.sleep(options.delay)
        while True:
            data, peer = server.recvfrom(65536)
            if not options.silent:
                server.sendto(data, peer)


if __name__ == "__main__":
    main()
