"""Asks the Redis server at this port a hundred times a second, over one connection: for each line ``SECONDS COMMAND …`` on stdin
so long, each of the commands in turn; then says how often."""

from __future__ import annotations

import socket
import sys
import time


def main() -> None:
    with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as connection:
        for line in sys.stdin:
            seconds, *commands = line.split()
            until, asked = time.monotonic() + float(seconds), 0
            while time.monotonic() < until:
                command = commands[asked % len(commands)].encode()
                connection.sendall(b"*1\r\n$%d\r\n%s\r\n" % (len(command), command))
                connection.recv(1000)
                asked += 1
                time.sleep(0.01)
            print(asked, flush=True)


if __name__ == "__main__":
    main()
