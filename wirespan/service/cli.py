"""The command line. Exit status: 0 fine, 1 failed to start or while running, 2 wrong usage or configuration.

What a command needs is imported when it runs: ``wirespan version`` and ``--help`` load nothing but click.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from .. import __version__
from ..pipeline.terminal import can_be_redrawn

if TYPE_CHECKING:
    from ..processors.anomaly.detector import DetectorName
    from .check import Finding
    from .config import Configuration
    from .document import Document

USAGE = 2

_VERSION_LINE = "%(prog)s %(version)s"

# Whether it is readable shows when it is read: access(2), which click would ask, leaves capabilities out of account.
_CONFIG_FILE = click.Path(path_type=Path, readable=False)
_CONFIG_HELP = "The configuration. May be repeated: what a later file says wins, and mappings are merged."
_SET_HELP = "Set one value of the configuration; it wins over the file. VALUE is YAML. May be repeated."


_config_option = click.option(
    "--config", "config_files", metavar="FILE", required=True, multiple=True, type=_CONFIG_FILE, help=_CONFIG_HELP
)
_set_option = click.option("--set", "assignments", metavar="PATH=VALUE", multiple=True, help=_SET_HELP)


class Choice(NamedTuple):
    """A configuration that comes with wirespan, and why it was chosen."""

    file: str
    reason: str


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="wirespan", message=_VERSION_LINE, help="Print the version and exit.")
def main() -> None:
    """Watch every request on this machine and export it as an OpenTelemetry span.

    No application is changed or restarted: requests are seen in the kernel, by eBPF.

    \b
    Examples:
      sudo wirespan run                     who calls whom on this machine, as a table
      sudo OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4317 wirespan run
                                            ... to an OpenTelemetry Collector, Jaeger or Tempo
      sudo wirespan run --set 'receivers.ebpf.select.ports=[6379]'
                                            only connections to port 6379
      sudo wirespan run --config my.yaml    your own receivers, exporters and pipelines
      sudo wirespan check                   is everything here that it needs?
      sudo wirespan status                  what does the agent that runs here do?

    \b
    The smallest configuration file:
      receivers: {ebpf: {select: {ports: [6379]}}}    # no select: the whole machine
      exporters: {file: {path: spans.jsonl}}
      service: {pipelines: {traces: {receivers: [ebpf], exporters: [file]}}}

    Exit status: 0 fine, 1 failed to start or while running, 2 wrong usage or configuration.
    """


@main.command()
@click.option(
    "--config",
    "config_files",
    metavar="FILE",
    multiple=True,
    type=_CONFIG_FILE,
    help=f"{_CONFIG_HELP} Without it: a table on this terminal (a line a span, if it is none), or spans to "
    "OTEL_EXPORTER_OTLP_ENDPOINT if that is set.",
)
@_set_option
def run(config_files: tuple[Path, ...], assignments: tuple[str, ...]) -> None:
    """Watch this machine until SIGINT (Ctrl-C) or SIGTERM.

    On either, what is under way is exported first; a second Ctrl-C ends at once. SIGHUP reads the configuration again.

    \b
    Examples:
      sudo wirespan run --set receivers.ebpf.spans.probability=0.1
      sudo wirespan run --set exporters.debug.verbosity=detailed
      sudo wirespan run --config my.yaml --set service.telemetry.logs.level=debug
    """
    # numpy's OpenBLAS starts a thread for each processor when it is imported. Nothing here multiplies matrices so large.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    reason = None
    if not config_files:
        file, reason = _built_in_configuration(os.environ, assignments)
        config_files = (Path(str(files("wirespan"))) / "config" / file,)
    _, configuration = _load(config_files, assignments)
    from .lifecycle import run as run_until_stopped

    def read() -> Configuration:
        return _read(config_files, assignments)[1]

    sys.exit(run_until_stopped(configuration, _named(config_files), reason, read))


@main.command()
@_config_option
@_set_option
def validate(config_files: tuple[Path, ...], assignments: tuple[str, ...]) -> None:
    """Say what is wrong in a configuration, with lines and suggestions. Nothing is started."""
    _, configuration = _load(config_files, assignments)
    for warning in configuration.warnings:
        click.secho(f"warning: {warning}", fg="yellow", err=True)
    click.echo(f"{_named(config_files)}: fine")


@main.command()
@_config_option
@_set_option
def print_config(config_files: tuple[Path, ...], assignments: tuple[str, ...]) -> None:
    """Print the configuration that is in effect, as YAML.

    Files are merged and references replaced; what is not written has its default. Secrets are not shown.
    """
    document, _ = _load(config_files, assignments)
    from .printing import printed

    click.echo(printed(document.tree), nl=False)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table.")
def check(as_json: bool) -> None:
    """Say whether this machine has all that is needed, and what to do if not.

    Run it as the user who will run wirespan. Exit status 1 if something essential is missing.
    """
    from .check import Verdict, run_checks

    findings = run_checks()
    ok = all(finding.verdict is not Verdict.FAILED for finding in findings)
    click.echo(_json(findings, ok) if as_json else _table(findings, ok))
    sys.exit(0 if ok else 1)


@main.command()
@click.option("--pid", type=int, help="Of the agent to ask, where several run.")
@click.option("--show-config", is_flag=True, help="Also the configuration in effect, without secrets.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object with everything, instead of tables.")
def status(pid: int | None, show_config: bool, as_json: bool) -> None:
    """Say what a running agent does: pipelines, counts and rates, queues, what is lost, cost.

    Ask as root, or as the user that it runs as; of one in a container with a network of its own, in there. Exit status 1 if
    none answers.

    \b
    Examples:
      sudo wirespan status
      sudo wirespan status --json
      docker exec CONTAINER wirespan status
    """
    from .status_socket import NotAnswered, ask, running_agents

    agents = running_agents()
    if pid is None and len(agents) > 1:
        raise click.ClickException(f"several agents run; choose by --pid one of {', '.join(map(str, sorted(agents)))}")
    if not agents or (pid is not None and pid not in agents):
        raise click.ClickException(f"no agent runs here{'' if pid is None else f' with the pid {pid}'}")
    chosen = next(iter(agents)) if pid is None else pid
    try:
        said = ask(agents[chosen])
    except NotAnswered as error:
        raise click.ClickException(f"the agent with the pid {chosen} does not answer: {error}") from error
    if as_json:
        click.echo(json.dumps(said, indent=2))
        return
    from .status_text import status_text

    click.echo(status_text(said, show_config))


@main.command()
def components() -> None:
    """List the components that can be configured, with the signals they support, as YAML."""
    from .components import components_text
    from .registry import Registry

    click.echo(components_text(Registry()), nl=False)


@main.command()
@click.argument("test", nargs=-1, required=True)
@click.option("--train", multiple=True, required=True, help="Recordings of normal traffic. May be repeated.")
@click.option("--output", type=_CONFIG_FILE, help="Where TEST goes, with what was found in its spans.")
@click.option("--traces", type=_CONFIG_FILE, help="Where the scores of traces go: CSV of trace_id,score.")
@click.option("--threshold", type=click.FloatRange(0.5, 1, max_open=True), default=0.999, show_default=True)
@click.option(
    "--detector",
    type=click.Choice(["isolation_forest", "tails"]),
    default="isolation_forest",
    show_default=True,
    help="What makes one number of what is odd about a span.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed gives the same scores.")
def score(
    test: tuple[str, ...],
    train: tuple[str, ...],
    output: Path | None,
    traces: Path | None,
    threshold: float,
    detector: DetectorName,
    seed: int,
) -> None:
    """Say how odd recorded spans are, compared with recorded normal traffic.

    Recordings are OTLP: JSON lines, as the exporter `file` writes them, or protobuf. TEST and TRAIN are files, folders or
    globs in quotes. A score of 0.999 is what one in a thousand of normal spans has.

    \b
    Example:
      wirespan score today.jsonl --train 'lastweek/*.jsonl' --output scored.jsonl --traces scores.csv
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from ..processors.anomaly.recordings import RecordingError
    from .score import score as score_recordings

    try:
        click.echo(score_recordings(test, train, output, traces, detector, threshold, seed))
    except RecordingError as error:
        click.echo(f"wirespan score: {error}", err=True)
        sys.exit(1)


@main.command()
def version() -> None:
    """Print the version."""
    click.echo(_VERSION_LINE % {"prog": "wirespan", "version": __version__})


def _load(config_files: Sequence[Path], assignments: tuple[str, ...]) -> tuple[Document, Configuration]:
    """The configuration, as it is written and as it is meant; on problems they are printed and the process ends."""
    from .document import ConfigurationError

    try:
        return _read(config_files, assignments)
    except ConfigurationError as error:
        for problem in error.problems:
            click.echo(str(problem), err=True)
        count = len(error.problems)
        click.secho(f"{count} problem{'s' if count > 1 else ''} in the configuration", fg="red", err=True)
        sys.exit(USAGE)


def _read(config_files: Sequence[Path], assignments: tuple[str, ...]) -> tuple[Document, Configuration]:
    """Raises ConfigurationError."""
    from .config import check as check_configuration
    from .config import read_all

    document = read_all(config_files, os.environ, assignments)
    return document, check_configuration(document)


def _named(config_files: Sequence[Path]) -> str:
    return ", ".join(map(str, config_files))


def _built_in_configuration(environment: Mapping[str, str], assignments: Sequence[str] = ()) -> Choice:
    """By the variables of the OpenTelemetry specification (OTLP exporter configuration), traces' own first; without
    them, by what stdout is."""
    endpoint_variable = _first_set(environment, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    if endpoint_variable is None:
        unset = "OTEL_EXPORTER_OTLP_ENDPOINT is not set"
        if any(assignment.startswith("exporters.debug") for assignment in assignments):
            return Choice("default.yaml", f"{unset}, --set names exporters.debug")
        if can_be_redrawn(sys.stdout, environment):
            return Choice("terminal.yaml", f"{unset}, stdout is a terminal")
        return Choice("default.yaml", f"{unset}, stdout is no terminal that can be redrawn")
    protocol_variable = _first_set(environment, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    if protocol_variable is None:
        return _configuration_of_port(endpoint_variable, environment[endpoint_variable])
    protocol = environment[protocol_variable]
    configurations = {"grpc": "otlp.yaml", "http/protobuf": "otlp_http.yaml"}
    if protocol not in configurations:
        raise click.UsageError(f'{protocol_variable} is "{protocol}"; it can be {" or ".join(configurations)}')
    return Choice(configurations[protocol], f"{endpoint_variable} is set and {protocol_variable} is {protocol}")


def _configuration_of_port(variable: str, endpoint: str) -> Choice:
    """Without a protocol gRPC, unless the port is the one that OTLP has for HTTP."""
    if endpoint.rpartition("://")[2].partition("/")[0].endswith(":4318"):
        return Choice("otlp_http.yaml", f"{variable} is set and has HTTP's port 4318")
    return Choice("otlp.yaml", f"{variable} is set")


def _first_set(environment: Mapping[str, str], *names: str) -> str | None:
    """The specification takes an empty variable for one that is not set."""
    return next((name for name in names if environment.get(name)), None)


def _json(findings: list[Finding], ok: bool) -> str:
    checks = [
        {"requirement": f.requirement, "verdict": f.verdict.value, "found": f.found, "remedy": f.remedy}
        for f in findings
    ]
    return json.dumps({"ok": ok, "checks": checks}, indent=2)


def _table(findings: list[Finding], ok: bool) -> str:
    marks = {"ok": click.style("✓", fg="green"), "warning": click.style("!", fg="yellow")}
    marks["failed"] = click.style("✗", fg="red")
    width = max(len(finding.requirement) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{marks[finding.verdict.value]} {finding.requirement:{width}}  {finding.found}")
        if finding.remedy:
            lines.append(f"  {'':{width}}  → {finding.remedy}")
    verdict = "wirespan can run here." if ok else "wirespan cannot run here until what is marked ✗ is mended."
    return "\n".join([*lines, "", verdict])
