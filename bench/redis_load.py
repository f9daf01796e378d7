"""redis-benchmark with 50 connections against a redis-server, each on a core of its own."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.surroundings import cores, output, pinned
from support import servers
from support.availability import need_command

WARM_UP = 5_000


@dataclass(frozen=True, slots=True)
class RedisLoad:
    """redis-benchmark's command line up to the number of requests."""

    command: Sequence[str | Path]

    def requests_per_second(self, requests: int) -> float:
        """As redis-benchmark says, of GETs; after a short run that is not measured."""
        self._run(WARM_UP)
        (row,) = csv.DictReader(self._run(requests).splitlines())
        return float(row["rps"])

    def endless(self) -> Sequence[str | Path]:
        """A command that goes on until it is ended."""
        return [*self.command, "-l"]

    def _run(self, requests: int) -> str:
        return output([*self.command, "-n", str(requests), "--csv"], cores().load)


@contextmanager
def redis_load(folder: Path) -> Iterator[RedisLoad]:
    """The load generator of a running server."""
    benchmark = need_command("redis-benchmark")
    with ExitStack() as stack:
        with pinned(cores().server):
            listening = stack.enter_context(servers.redis(folder))
        yield RedisLoad([benchmark, "-p", str(listening.port), "-c", "50", "-t", "get"])
