"""Asks a server that answers each datagram with itself: ADDRESS PORT and the options below.

Each socket sends `window` datagrams, then waits for their answers, and so on.
"""

from __future__ import annotations

import argparse
import socket

from many_messages import Messages, raw_address


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("address")
    arguments.add_argument("port", type=int)
    arguments.add_argument("--exchanges", type=int, default=1, help="of each socket; a multiple of the window")
    arguments.add_argument("--sockets", type=int, default=1)
    arguments.add_argument("--window", type=int, default=1)
    arguments.add_argument("--unconnected", action="store_true")
    arguments.add_argument("--many", action="store_true", help="a window in one sendmmsg, answers by recvmmsg")
    arguments.add_argument("--constant", action="store_true", help="all datagrams are alike")
    arguments.add_argument("--size", type=int, default=32)
    arguments.add_argument("--timeout", type=float, default=5.0, help="seconds to wait for an answer")
    arguments.add_argument("--dual-stack", action="store_true", help="an IPv6 socket to an IPv4 address")
    options = arguments.parse_args()
    clients = [make(options) for _ in range(options.sockets)]
    for begin in range(0, options.exchanges, options.window):
        for client in clients:
            exchange(client, options, range(begin, begin + options.window))


def make(options: argparse.Namespace) -> socket.socket:
    is_v6 = ":" in options.address or options.dual_stack
    client = socket.socket(socket.AF_INET6 if is_v6 else socket.AF_INET, socket.SOCK_DGRAM)
    client.settimeout(options.timeout)
    if options.dual_stack:
        options.address = f"::ffff:{options.address}" if ":" not in options.address else options.address
    if not options.unconnected:
        client.connect((options.address, options.port))
    return client


def exchange(client: socket.socket, options: argparse.Namespace, numbers: range) -> None:
    sent = [(b"" if options.constant else b"%08d" % number).ljust(options.size, b"x") for number in numbers]
    if options.many:
        client.setblocking(True)
        name = raw_address(options.address, options.port) if options.unconnected else b""
        messages, answers = Messages(len(sent)), []
        messages.send(client, [(data, name) for data in sent])
        while len(answers) < len(sent):
            answers += [data for data, _ in messages.receive(client)]
    else:
        for data in sent:
            if options.unconnected:
                client.sendto(data, (options.address, options.port))
            else:
                client.send(data)
        answers = [client.recv(65536) for _ in sent]
    assert sorted(answers) == sorted(sent)


if __name__ == "__main__":
    main()
