"""Everything at once, for long: ``make soak ARGS="[--minutes N] [--outage-minutes N]"``.

The agent watches the whole machine and exports to a server that only acknowledges, while a web server and Redis get
bursts of requests, with and without pipelining, and clients come and go, reset, are refused and close one half. In the
end every exchange has to be accounted for, and the agent must not have grown: its proportional set size (PSS) less the
rings, the median of the last seconds against that of the seconds after the first minute, or after a third of a run of
less than three minutes. Then a Collector sends traces, metrics and logs through an agent to a backend that is killed and started
again at random, all of which has to arrive.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import click

import tools
from bench.memory import megabytes
from bench.surroundings import Ledger, agent, discarding_server, otlp_grpc
from support import servers
from support.availability import need_command
from support.exchanges import PROGRAMS
from support.outages import outages
from support.processes import free_port

DRIFT_LIMIT = 2.0  # MB
_WARM_UP = 60.0
_REPORT_INTERVAL = 10.0
#: seconds whose samples a size is the median of; a sixth of a short run
_WINDOW = 10.0
_SAMPLE_INTERVAL = 1.0
_POLL_INTERVAL = 0.1

Say = Callable[[str], None]


class Load:
    """A command that is run every so many seconds, or when its last run has ended if that is later. Each run is a new
    process to the agent, and a burst at full speed: between them it can make up leeway, as on most machines."""

    def __init__(self, title: str, interval: float, *command: str | Path) -> None:
        self.title = title
        self.runs = 0
        self._interval = interval
        self._next = 0.0
        self._command = [str(word) for word in command]
        self._process: subprocess.Popen[bytes] | None = None

    def keep_up(self, at: float) -> None:
        """Start it if it is time; SoakError if it failed."""
        if self._process is not None:
            status = self._process.poll()
            if status is None:
                return
            if status:
                raise SoakError(f"{self.title} ended with status {status}: {' '.join(self._command)}")
            self.runs += 1
            self._process = None
        if at < self._next:
            return
        self._next = at + self._interval
        # What ab, h2load and redis-benchmark print are figures of a machine that does everything else besides.
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


class SoakError(Exception):
    """What was to be shown is not so, or could not be tried."""


@dataclass
class Soak:
    """sizes: of the agent in MB, a sample a second, by the second of the run."""

    seconds: float
    ledger: Ledger = field(default_factory=Ledger)
    sizes: dict[float, float] = field(default_factory=dict)
    runs: dict[str, int] = field(default_factory=dict)

    @property
    def begin(self) -> float:
        """When the agent has met all that there is, and its size is looked at first."""
        return min(_WARM_UP, self.seconds / 3)

    @property
    def drift(self) -> float:
        """MB."""
        window = min(_WINDOW, self.seconds / 6)
        return self._size(self.seconds - window, self.seconds) - self._size(self.begin, self.begin + window)

    def _size(self, begin: float, end: float) -> float:
        return statistics.median(size for at, size in self.sizes.items() if begin <= at < end)

    def flaws(self, drift_limit: float = DRIFT_LIMIT) -> list[str]:
        """What is not as promised, for people."""
        found = [f"{title} did not end once" for title, runs in self.runs.items() if not runs]
        if self.ledger.unaccounted:
            found.append(f"{self.ledger.unaccounted:,} exchanges unaccounted for")
        if not self.ledger.exported:
            found.append("nothing was exported")
        if self.drift > drift_limit:
            found.append(f"the agent grew by {self.drift:.1f} MB, more than {drift_limit:g}")
        return found


def soak(seconds: float, folder: Path, say: Say) -> Soak:
    """Raises SoakError if a load fails."""
    found = Soak(seconds)
    with ExitStack() as stack:
        loads = stack.enter_context(all_loads(folder))
        sink = stack.enter_context(discarding_server(folder))
        watching = stack.enter_context(agent(otlp_grpc(sink), folder, found.ledger))
        began = time.monotonic()
        next_sample, next_report = 0.0, _REPORT_INTERVAL
        while (at := time.monotonic() - began) < seconds:
            for load in loads:
                load.keep_up(at)
            if at >= next_sample:
                found.sizes[at] = megabytes(watching.pid, "Pss")
                next_sample = at + _SAMPLE_INTERVAL
            if at >= next_report:
                say(report(at, found.sizes[max(found.sizes)], loads))
                next_report += _REPORT_INTERVAL
            time.sleep(_POLL_INTERVAL)
    found.runs = {load.title: load.runs for load in loads}
    return found


def report(at: float, size: float, loads: Sequence[Load]) -> str:
    runs = ", ".join(f"{load.title} {load.runs}" for load in loads)
    return f"{at:5.0f} s  {size:.1f} MB  runs: {runs}"


@contextmanager
def all_loads(folder: Path) -> Iterator[list[Load]]:
    """Not started yet; what they ask is running."""
    second_port = free_port()
    multiplexed = f"listen 127.0.0.1:{second_port} http2;"
    with ExitStack() as stack:
        web = stack.enter_context(servers.nginx(folder, multiplexed))
        redis = stack.enter_context(servers.redis(folder))
        echo = stack.enter_context(servers.python_server(PROGRAMS / "echo_server.py", folder))
        page, same_page = (f"http://127.0.0.1:{port}/index.html" for port in (web.port, second_port))
        benchmark = [need_command("redis-benchmark"), "-p", str(redis.port), "-c", "20", "-t", "get,set,incr", "-q"]
        loads = [
            Load("ab", 5, need_command("ab"), "-q", "-c", "10", "-n", "5000", page),
            Load("ab -k", 5, need_command("ab"), "-q", "-k", "-c", "10", "-n", "10000", page),
            Load("h2load", 3, need_command("h2load"), "-c", "5", "-m", "10", "-n", "5000", same_page),
            Load("redis", 3, *benchmark, "-n", "10000"),
            Load("redis -P 16", 3, *benchmark, "-P", "16", "-n", "10000"),
            Load("faults", 2, sys.executable, PROGRAMS / "faults.py", str(echo.port), "300"),
        ]
        try:
            yield loads
        finally:
            for load in loads:
                load.stop()


@click.command(help=__doc__)
@click.option("--minutes", type=click.FloatRange(min=0.3), default=10, show_default=True)
@click.option("--outage-minutes", type=click.FloatRange(min=0), default=2, show_default=True)
def main(minutes: float, outage_minutes: float) -> None:
    with tempfile.TemporaryDirectory(prefix="wirespan-soak-") as folder:
        found = soak(minutes * 60, Path(folder), click.echo)
    click.echo(f"{found.ledger}\nthe agent grew by {found.drift:+.1f} MB from {found.begin:.0f} s on")
    flaws = found.flaws()
    if outage_minutes and tools.find("otelcol") is None:
        click.echo("no outages of a backend: the Collector is not built, see `make test-tools`")
    elif outage_minutes:
        with tempfile.TemporaryDirectory(prefix="wirespan-soak-") as folder:
            passed = outages(outage_minutes * 60, Path(folder))
        click.echo(passed)
        flaws += passed.flaws()
    if flaws:
        raise click.ClickException("; ".join(flaws))


if __name__ == "__main__":
    main()
