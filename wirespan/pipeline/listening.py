"""Where servers listen, and by which certificates: settings with the Collector's keys, for all that listens."""

from __future__ import annotations

import re
from typing import NamedTuple

from pydantic import field_validator

from .component import ComponentConfig
from .tls import ServerTls

_ENDPOINT = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.%]+)\]|(?P<host>[^:/\[\]]*)):(?P<port>\d{1,5})")


class Address(NamedTuple):
    """host: empty for all interfaces."""

    host: str
    port: int


def address_of(endpoint: str) -> Address:
    """``host:port``, ``[v6]:port`` or ``:port``; raises ValueError for anything else."""
    found = _ENDPOINT.fullmatch(endpoint)
    if found is None or int(found["port"]) > 65_535:
        raise ValueError(f'endpoint "{endpoint}" is not host:port, such as localhost:4317 or 0.0.0.0:4317')
    return Address(found["v6"] or found["host"], int(found["port"]))


def sender_of(host: str) -> str:
    """An address as others write it: without the zone, and IPv4 where a socket of IPv6 has taken that."""
    return host.partition("%")[0].removeprefix("::ffff:")


class ServerSettings(ComponentConfig):
    endpoint: str
    tls: ServerTls | None = None

    @field_validator("endpoint")
    @classmethod
    def _is_an_address(cls, endpoint: str) -> str:
        address_of(endpoint)
        return endpoint
