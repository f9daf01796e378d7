"""Nothing is lost silently:
``observed + recovered = exported + sampled_out + excluded + skipped + dropped{reason} + in_flight + kept``, where what an
exporter has kept in a storage at its end is what the next run recovers. A run that is killed says nothing of what it kept.

Each term is counted by whoever does it, none is computed from the others; ``unaccounted`` is what is left, and it is
0 once everything has stopped. While data flows, the terms are read a moment apart, so it may be off by a batch. With
several exporters each has an identity of its own, as each gets every span.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..pipeline.counters import CounterKey, Counters
from .config import Configuration, Pipeline

OBSERVED = "wirespan.exchanges.observed"
SAMPLED_OUT = "wirespan.exchanges.sampled_out"
EXCLUDED = "wirespan.exchanges.excluded"
SKIPPED = "wirespan.exchanges.skipped"
DROPPED = "wirespan.exchanges.dropped"
RECEIVER_IN_FLIGHT = "wirespan.exchanges.in_flight"
#: spans that came by OTLP
OFFERED = ("otelcol_receiver_accepted_spans", "otelcol_receiver_refused_spans")
#: spans that a processor refused, whose senders were told
REFUSED = "otelcol_processor_refused_spans"
PROCESSOR_IN_FLIGHT = "wirespan.processor.in_flight_items"
#: reasons of drops that also concern what came by OTLP
ON_THE_WAY = frozenset({"defect", "shutdown"})
EXPORTED = "otelcol_exporter_sent_spans"
EXPORTER_IN_FLIGHT = "wirespan.exporter.in_flight_spans"
RECOVERED = "wirespan.exporter.recovered_spans"
KEPT = "wirespan.exporter.kept_spans"
#: What an exporter drops, and the reason under which that is reported.
EXPORTER_DROPS = {
    "otelcol_exporter_send_failed_spans": "send_failed",
    "otelcol_exporter_enqueue_failed_spans": "enqueue_failed",
}

#: what looks like a loss, and was asked for
_OF_RATE_LIMIT = (
    "rate_limit is no defect: a burst went beyond the budget, spans.max_per_second; metrics count all of it"
)


@dataclass(frozen=True, slots=True)
class Identity:
    """Where the exchanges on their way to one exporter are. dropped: by reason."""

    exporter: str
    observed: int
    exported: int
    sampled_out: int
    excluded: int
    skipped: int
    dropped: Mapping[str, int]
    in_flight: int
    recovered: int = 0
    kept: int = 0

    @property
    def _as_wished(self) -> int:
        return self.exported + self.sampled_out + self.excluded + self.skipped

    @property
    def unaccounted(self) -> int:
        ended = self._as_wished + sum(self.dropped.values())
        return self.observed + self.recovered - ended - self.in_flight - self.kept

    @property
    def coverage(self) -> float:
        """The part that was handled as wished, 0 to 1; of nothing, all. What is kept is the next run's."""
        due = self.observed + self.recovered - self.kept
        return self._as_wished / due if due else 1.0

    @property
    def sum(self) -> str:
        """The identity for a reader, without what is 0: ``70 observed = 65 exported + 5 dropped by send_failed``."""
        terms = {
            "sampled_out": self.sampled_out,
            "excluded": self.excluded,
            "skipped": self.skipped,
            **{f"dropped by {reason}": amount for reason, amount in self.dropped.items()},
            "in_flight": self.in_flight,
            "kept": self.kept,
            "unaccounted": self.unaccounted,
        }
        others = "".join(f" + {amount} {what}" for what, amount in terms.items() if amount)
        recovered = f" + {self.recovered} recovered" if self.recovered else ""
        return f"{self.observed} observed{recovered} = {self.exported} exported{others}"

    def fields(self) -> dict[str, Any]:
        """For the log."""
        return {
            "exporter": self.exporter,
            "sum": self.sum,
            **({"note": _OF_RATE_LIMIT} if self.dropped.get("rate_limit") else {}),
            "observed": self.observed,
            "recovered": self.recovered,
            "exported": self.exported,
            "sampled_out": self.sampled_out,
            "excluded": self.excluded,
            "skipped": self.skipped,
            "dropped": dict(self.dropped),
            "in_flight": self.in_flight,
            "kept": self.kept,
            "unaccounted": self.unaccounted,
            "coverage": round(self.coverage, 6),
        }


def identities(counters: Counters, configuration: Configuration) -> list[Identity]:
    """One an exporter of spans that is in use, in the order of the configuration.

    An exporter that several pipelines feed is to get every exchange as often.
    """
    pipelines = [pipeline for pipeline in configuration.pipelines if pipeline.signal == "traces"]
    sums, gauges = counters.snapshot(), counters.gauges()
    found = []
    for exporter in dict.fromkeys(exporter for pipeline in pipelines for exporter in pipeline.exporters):
        feeding = [pipeline for pipeline in pipelines if exporter in pipeline.exporters]
        found.append(_identity(exporter, sums, gauges, _sources(configuration, feeding)))
    return found


@dataclass(frozen=True, slots=True)
class _Sources:
    """What feeds an exporter. exchanges: pipelines with what is observed. received: of each pipeline the receivers of OTLP.
    pipelines: ids."""

    exchanges: int
    received: tuple[str, ...]
    pipelines: frozenset[str]


def _sources(configuration: Configuration, pipelines: Sequence[Pipeline]) -> _Sources:
    by_otlp = {id_ for id_, settings in configuration.components["receiver"].items() if settings.factory.encoded_spans}
    return _Sources(
        exchanges=sum(1 for pipeline in pipelines if not by_otlp.issuperset(pipeline.receivers)),
        received=tuple(id_ for pipeline in pipelines for id_ in pipeline.receivers if id_ in by_otlp),
        pipelines=frozenset(pipeline.id for pipeline in pipelines),
    )


def _identity(
    exporter: str, sums: Mapping[CounterKey, int], gauges: Mapping[CounterKey, int], sources: _Sources
) -> Identity:
    own, copies = (("exporter", exporter),), sources.exchanges
    dropped: Counter[str] = Counter()
    for (name, attributes), amount in sums.items():
        reason = dict(attributes).get("reason", "unknown")
        if name == DROPPED and (copies or reason in ON_THE_WAY):
            dropped[reason] += amount * (copies or 1)
        elif name == REFUSED and dict(attributes)["pipeline"] in sources.pipelines:
            dropped["refused"] += amount
    for name, reason in EXPORTER_DROPS.items():
        dropped[reason] += sums.get((name, own), 0)
    return Identity(
        exporter=exporter,
        observed=_total(sums, OBSERVED) * copies + _received(sums, sources.received),
        exported=sums.get((EXPORTED, own), 0),
        sampled_out=_total(sums, SAMPLED_OUT) * copies,
        excluded=_total(sums, EXCLUDED) * copies,
        skipped=_total(sums, SKIPPED) * copies,
        dropped=dict(+dropped),
        in_flight=_total(gauges, RECEIVER_IN_FLIGHT) * copies
        + _held(gauges, sources.pipelines)
        + gauges.get((EXPORTER_IN_FLIGHT, own), 0),
        recovered=sums.get((RECOVERED, own), 0),
        kept=sums.get((KEPT, own), 0),
    )


def _held(gauges: Mapping[CounterKey, int], pipelines: frozenset[str]) -> int:
    """What processors of these pipelines hold back."""
    return sum(
        held
        for (name, attributes), held in gauges.items()
        if name == PROCESSOR_IN_FLIGHT and dict(attributes)["pipeline"] in pipelines
    )


def _received(sums: Mapping[CounterKey, int], receivers: Sequence[str]) -> int:
    """Spans that senders offered; those that were refused were so by an exporter, which has counted them, or on the way."""
    offered: Counter[str] = Counter()
    for (name, attributes), amount in sums.items():
        if name in OFFERED:
            offered[dict(attributes)["receiver"]] += amount
    return sum(offered[receiver] for receiver in receivers)


def _total(values: Mapping[CounterKey, int], name: str) -> int:
    """The sum over all attributes."""
    return sum(value for (key, _), value in values.items() if key == name)
