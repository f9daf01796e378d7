"""Opens many connections to an echo server, makes an exchange on each, and holds them; on SIGUSR1 makes another exchange
on the first of them. The n-th one's request has n bytes then, from 1 on.

usage: idle_crowd.py PORT CONNECTIONS ASKING
"""

from __future__ import annotations

import resource
import signal
import socket
import sys


def main() -> None:
    port, count, asking = (int(argument) for argument in sys.argv[1:])
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    try:
        connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]
    except OSError as error:
        sys.exit(f"the machine cannot hold them: {error.strerror}")
    for connection in connections:
        exchange(connection, 4)
    print("all are open", flush=True)
    signal.sigwait({signal.SIGUSR1})
    for number, connection in enumerate(connections[:asking], 1):
        exchange(connection, number)
    print("asked", flush=True)
    signal.pause()


def exchange(connection: socket.socket, size: int) -> None:
    connection.sendall(bytes(size))
    assert len(connection.recv(size, socket.MSG_WAITALL)) == size


if __name__ == "__main__":
    main()
