"""What there is to watch on this machine: processes, TCP connections and listening ports, of all network namespaces.

A namespace is read through any process in it: /proc/PID/net is its own. Counting is cheap however many connections there
are: /proc/net/tcp lists listening sockets before all others (net/ipv4/tcp_ipv4.c, ``tcp_seek_last_pos``), so it is read
no further, and how many sockets there are in all, sockstat says.
"""

from __future__ import annotations

import ipaddress
import os
import shutil
import socket
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_LISTEN: Final = "0A"  # TCP_LISTEN of include/net/tcp_states.h
#: ports that answer HTTP on most machines where something listens on them, the likeliest first
_LIKELY_HTTP: Final = (80, 8080, 8000, 3000, 5000, 8081, 8888, 9090, 9200, 4318, 15672)
_REDIS: Final = 6379
#: where a server is suggested, if it is free
_OWN_SERVER: Final = range(8000, 8100)


@dataclass(frozen=True, slots=True)
class Listener:
    """address: as text; port."""

    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Machine:
    """processes: seen in /proc, without kernel threads. connections: TCP sockets that do not listen. listening_ports: of all namespaces."""

    processes: int
    connections: int
    listening_ports: int


def survey(proc: Path = Path("/proc")) -> Machine:
    """Count now. What ends meanwhile is left out."""
    processes = [name for name in os.listdir(proc) if name.isdigit() and _is_program(proc / name)]
    namespaces: dict[str, str] = {}
    for process in processes:
        try:
            namespaces.setdefault(os.readlink(proc / process / "ns" / "net"), process)
        except OSError:  # it has ended, or is another user's
            continue
    connections = ports = 0
    for process in namespaces.values():
        listening = list(listeners(proc / process / "net"))
        ports += len({listener.port for listener in listening})
        connections += max(0, _sockets(proc / process / "net") - len(listening))
    return Machine(len(processes), connections, ports)


def listeners(net: Path = Path("/proc/self/net")) -> Iterator[Listener]:
    """Listening TCP sockets of a namespace."""
    for name in ("tcp", "tcp6"):
        try:
            with (net / name).open(encoding="ascii") as table:
                next(table, None)
                for line in table:
                    fields = line.split()
                    if fields[3] != _LISTEN:
                        break
                    address, _, port = fields[1].rpartition(":")
                    yield Listener(_address(address), int(port, 16))
        except OSError:
            continue


def suggestion(watched: Collection[int], net: Path = Path("/proc/self/net")) -> str:
    """A command whose exchange will be seen. watched: server ports, at least one."""
    listening = {found.port: found for found in listeners(net) if found.port in watched}
    for port in _LIKELY_HTTP:
        if port in listening:
            return f"curl http://{_reachable(listening[port].address)}:{port}/"
    if _REDIS in listening and shutil.which("redis-cli"):
        return "redis-cli ping"
    free = (port for port in _OWN_SERVER if port in watched and _is_free(port))
    port = next(free, min(watched))
    if port in listening:
        return f"curl http://{_reachable(listening[port].address)}:{port}/"
    return f"timeout 60 python3 -m http.server {port} & sleep 1; curl http://127.0.0.1:{port}/"


def _is_program(process: Path) -> bool:
    """Kernel threads have no executable, nor has what has ended."""
    try:
        os.readlink(process / "exe")
    except FileNotFoundError:
        return False
    except OSError:  # another user's
        return True
    return True


def _sockets(net: Path) -> int:
    """TCP sockets in use, of both families; sockstat is of a namespace too."""
    count = 0
    for name in ("sockstat", "sockstat6"):
        try:
            lines = (net / name).read_text(encoding="ascii").splitlines()
        except OSError:
            continue
        count += sum(int(line.split()[2]) for line in lines if line.startswith(("TCP:", "TCP6:")))
    return count


def _address(hexadecimal: str) -> str:
    """Of /proc/net/tcp: words of 32 bits in the machine's byte order, each in hex."""
    words = (hexadecimal[begin : begin + 8] for begin in range(0, len(hexadecimal), 8))
    return str(ipaddress.ip_address(b"".join(socket.htonl(int(word, 16)).to_bytes(4, "big") for word in words)))


def _reachable(address: str) -> str:
    """Where a client on this machine finds who listens there."""
    at = ipaddress.ip_address(address)
    if at.is_unspecified:
        return "127.0.0.1"
    return f"[{at}]" if at.version == 6 else str(at)


def _is_free(port: int) -> bool:
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
