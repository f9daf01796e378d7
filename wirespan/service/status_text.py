"""``wirespan status`` for eyes: what :mod:`.status` says, as tables."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import click

Said = Mapping[str, Any]
_Row = Sequence[str]

#: what was taken and refused, by what that is
_RECEIVED: Final = {
    "spans": ("otelcol_receiver_accepted_spans", "otelcol_receiver_refused_spans"),
    "metric points": ("otelcol_receiver_accepted_metric_points", "otelcol_receiver_refused_metric_points"),
    "log records": ("otelcol_receiver_accepted_log_records", "otelcol_receiver_refused_log_records"),
}
_PROCESSED: Final = ("otelcol_processor_incoming_items", "otelcol_processor_outgoing_items")
#: what was sent, has failed and found no room in the queue
_EXPORTED: Final = {
    "spans": (
        "otelcol_exporter_sent_spans",
        "otelcol_exporter_send_failed_spans",
        "otelcol_exporter_enqueue_failed_spans",
    ),
    "metric points": (
        "otelcol_exporter_sent_metric_points",
        "otelcol_exporter_send_failed_metric_points",
        "otelcol_exporter_enqueue_failed_metric_points",
    ),
    "log records": (
        "otelcol_exporter_sent_log_records",
        "otelcol_exporter_send_failed_log_records",
        "otelcol_exporter_enqueue_failed_log_records",
    ),
}
_UNITS: Final = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))
_NOTHING: Final = "–"
_NUMERIC: Final = re.compile(r"[\d,.]+%?|–")


def status_text(said: Said, configuration: bool = False) -> str:
    """configuration: whether to show that, too."""
    said = _harmless(said)
    sums = _Sums(said["sums"])
    parts = [
        _head(said),
        _table(("PIPELINE", "RECEIVERS", "PROCESSORS", "EXPORTERS"), _pipelines(said)),
        _table(("RECEIVER", "WHAT", "TAKEN", "PER SEC", "REFUSED"), _receivers(said, sums)),
        _table(("PROCESSOR", "WHAT", "IN", "PER SEC", "OUT"), _processors(sums)),
        _table(("EXPORTER", "WHAT", "SENT", "PER SEC", "FAILED", "NOT QUEUED"), _exporters(sums)),
        _table(("QUEUE", "HOLDS", "OF"), _queues(said)),
        _table(("EXPORTER", "COVERAGE", "WHERE SPANS ARE"), _identities(said)),
    ]
    if configuration:
        parts.append(
            f"{_bold('CONFIGURATION')} {said['configuration']['file']}\n{said['configuration']['text'].rstrip()}"
        )
    return "\n\n".join(part for part in parts if part)


class _Sums:
    """By name, each with its attributes."""

    def __init__(self, sums: Sequence[Said]) -> None:
        self._sums = sums

    def of(self, name: str, **attributes: str) -> tuple[float, float]:
        """The value and what is added in a second, of all that have these attributes."""
        found = [
            one for one in self._sums if one["name"] == name and attributes.items() <= dict(one["attributes"]).items()
        ]
        return sum(one["value"] for one in found), sum(one["per_second"] for one in found)

    def ids(self, key: str, names: Sequence[str]) -> list[str]:
        """The values of an attribute of these."""
        found = (one["attributes"].get(key) for one in self._sums if one["name"] in names)
        return sorted({id_ for id_ in found if id_ is not None})


def _head(said: Said) -> str:
    cost = said["cost"]
    user = f" of user {said['uid']}" if said["uid"] else ""
    colour = "green" if said["state"] == "running" else "yellow"
    return "\n".join(
        [
            f"{_bold('wirespan')} {said['version']}  {click.style(said['state'], fg=colour)}  pid {said['pid']}{user}  "
            f"up {_duration(said['uptime_seconds'])}  {said['configuration']['file']}",
            f"{cost['cores_agent']:.3f} cores, and {cost['cores_hooks']:.3f} in the kernel  "
            f"{_size(cost['memory_bytes'])}"
            + (f"  extensions: {', '.join(said['extensions'])}" if said["extensions"] else ""),
        ]
    )


def _pipelines(said: Said) -> Iterator[_Row]:
    for pipeline in said["pipelines"]:
        kinds = ("receivers", "processors", "exporters")
        yield (pipeline["id"], *(", ".join(pipeline[kind]) or "none" for kind in kinds))


def _receivers(said: Said, sums: _Sums) -> Iterator[_Row]:
    watching = {id_ for pipeline in said["pipelines"] for id_ in pipeline["receivers"] if id_.startswith("ebpf")}
    if watching:
        observed, rate = sums.of("wirespan.exchanges.observed")
        yield ", ".join(sorted(watching)), "exchanges", _number(observed), _rate(rate), _NOTHING
    for items, names in _RECEIVED.items():
        for id_ in sums.ids("receiver", names):
            (accepted, rate), (refused, _) = (sums.of(name, receiver=id_) for name in names)
            yield id_, items, _number(accepted), _rate(rate), _number(refused)


def _processors(sums: _Sums) -> Iterator[_Row]:
    for id_ in sums.ids("processor", _PROCESSED):
        for signal in sums.ids("otel.signal", _PROCESSED):
            attributes = {"processor": id_, "otel.signal": signal}
            (incoming, rate), (outgoing, _) = (sums.of(name, **attributes) for name in _PROCESSED)
            if incoming:
                yield id_, signal, _number(incoming), _rate(rate), _number(outgoing)


def _exporters(sums: _Sums) -> Iterator[_Row]:
    for items, names in _EXPORTED.items():
        for id_ in sums.ids("exporter", names):
            (sent, rate), (failed, _), (refused, _) = (sums.of(name, exporter=id_) for name in names)
            yield id_, items, _number(sent), _rate(rate), _failures(failed), _failures(refused)


def _queues(said: Said) -> Iterator[_Row]:
    gauges = {(one["name"], one["attributes"].get("exporter")): one["value"] for one in said["gauges"]}
    for (name, exporter), size in gauges.items():
        if name == "otelcol_exporter_queue_size" and exporter is not None:
            capacity = gauges.get(("otelcol_exporter_queue_capacity", exporter))
            yield exporter, _number(size), _NOTHING if capacity is None else _number(capacity)


def _identities(said: Said) -> Iterator[_Row]:
    for identity in said["exchanges"]:
        yield identity["exporter"], f"{identity['coverage']:.2%}", identity["sum"]


def _table(heads: _Row, rows: Iterator[_Row]) -> str:
    """Empty without rows. Numbers are to the right."""
    cells = [list(row) for row in rows]
    if not cells:
        return ""
    widths = [max(len(row[column]) for row in [heads, *cells]) for column in range(len(heads))]
    right = [all(_NUMERIC.fullmatch(row[column]) for row in cells) for column in range(len(heads))]

    def line(row: _Row) -> str:
        padded = (
            cell.rjust(width) if of_numbers else cell.ljust(width)
            for cell, width, of_numbers in zip(row, widths, right, strict=True)
        )
        return "  ".join(padded).rstrip()

    return "\n".join([_bold(line(heads)), *map(line, cells)])


def _number(value: float) -> str:
    return f"{value:,.0f}"


def _failures(value: float) -> str:
    return _number(value) if value else _NOTHING


def _rate(value: float) -> str:
    return f"{value:,.1f}"


def _size(size: int) -> str:
    unit, name = next(((unit, name) for unit, name in _UNITS if size >= unit), (1, "B"))
    return f"{size / unit:.0f} {name}"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = ((days, "d"), (hours, "h"), (minutes, "m"), (seconds, "s"))
    shown = [f"{value}{unit}" for value, unit in parts if value]
    return "".join(shown[:2]) or "0s"


def _bold(text: str) -> str:
    return click.style(text, bold=True)


def _harmless(value: Any) -> Any:
    """The same without control characters: names come from a configuration, and this goes to a terminal."""
    if isinstance(value, Mapping):
        return {key: _harmless(nested) for key, nested in value.items()}
    if isinstance(value, list):
        return [_harmless(nested) for nested in value]
    if isinstance(value, str):
        return "".join(character for character in value if character == "\n" or character.isprintable())
    return value
