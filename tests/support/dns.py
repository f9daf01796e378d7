"""A real DNS server, and lookups."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from support.availability import need_command
from support.processes import Process, free_port

#: of which the whole does not fit into what is noted down of a packet
LONG = ".".join(["a" * 40, "b" * 40, "c" * 40, "test"])


@contextmanager
def dnsmasq(
    folder: Path, address: str = "127.0.0.1", port: int | None = None, local: str = "10.1.2.3"
) -> Iterator[int]:
    """A server that knows `test` and refuses the rest; its port. local: the IPv4 address of here.test."""
    port = port or free_port(address)
    options = [
        "--keep-in-foreground",
        f"--port={port}",
        f"--listen-address={address}",
        "--bind-interfaces",
        "--no-resolv",
        "--no-hosts",
        "--user=root",
        "--conf-file=/dev/null",
        "--log-facility=-",
        "--local=/test/",
        f"--host-record=here.test,{local},fd00::1",
        f"--host-record={LONG},10.1.2.4",
        "--txt-record=large.test," + ",".join(["x" * 200] * 8),
    ]
    with Process("dnsmasq", [need_command("dnsmasq"), *options], folder) as process:
        process.wait_for_port(port, address)
        yield port


def dig(port: int, *words: str, address: str = "127.0.0.1", prefix: Sequence[str] = ()) -> str:
    command = [*prefix, str(need_command("dig")), f"@{address}", "-p", str(port), "+tries=1", "+time=1", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout
