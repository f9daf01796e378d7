"""Nothing is lost silently:
``observed + recovered = exported + sampled_out + excluded + skipped + dropped{reason} + in_flight + kept``, where what an
exporter has kept in a storage at its end is what the next run recovers. A run that is killed says nothing of what it kept.

Each term is counted by whoever does it, none is computed from the others; ``unaccounted`` is what is left, and it is
0 once everything has stopped. While data flows, the terms are read a moment apart, so it may be off by a batch. With
several exporters each has an identity of its own, as each gets every span.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

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


#: how often counters are looked at that go on meanwhile, and seconds between two looks
_LOOKS: Final = 40
_PAUSE_BETWEEN_LOOKS: Final = 0.005


@dataclass(frozen=True, slots=True)
class Reading:
    """What is counted and in flight at a moment."""

    sums: Mapping[CounterKey, int] = field(default_factory=dict)
    gauges: Mapping[CounterKey, int] = field(default_factory=dict)


def read(counters: Counters) -> Reading:
    """As of one moment, while receivers are held back and the kernel goes on observing.

    What they handed on is constant then, so of many looks the one with the median of it is not disturbed by a drain that counts
    what it takes out of a ring; and of all looks those count during which the fewest exchanges ended. Takes a fifth of a second.
    """
    looks: list[tuple[int, int, Reading]] = []
    for _ in range(_LOOKS):
        sums, gauges = counters.snapshot(), counters.gauges()
        observed = _total(sums, OBSERVED)
        ended = _total(counters.snapshot(), OBSERVED) - observed
        looks.append((ended, observed - _total(gauges, RECEIVER_IN_FLIGHT) - _left_out(sums), Reading(sums, gauges)))
        time.sleep(_PAUSE_BETWEEN_LOOKS)
    fewest = min(ended for ended, _, _ in looks)
    calm = sorted((handed_on, number) for number, (ended, handed_on, _) in enumerate(looks) if ended == fewest)
    return looks[calm[len(calm) // 2][1]][2]


def _left_out(sums: Mapping[CounterKey, int]) -> int:
    """By receivers."""
    return sum(_total(sums, name) for name in (SAMPLED_OUT, EXCLUDED, SKIPPED, DROPPED))


def identities(
    counters: Counters,
    configuration: Configuration,
    since: Mapping[str, Reading] | None = None,
    now: Reading | None = None,
) -> list[Identity]:
    """One an exporter of spans that is in use, in the order of the configuration.

    An exporter that several pipelines feed is to get every exchange as often. since: of exporters that are not accounted for
    from the start; what was in flight then counts as observed. now: what has been read already.
    """
    now = now or Reading(counters.snapshot(), counters.gauges())
    found = []
    for exporter, sources in sources_of(configuration).items():
        base = (since or {}).get(exporter, Reading())
        counted = {key: value - base.sums.get(key, 0) for key, value in now.sums.items()}
        found.append(_identity(exporter, Reading(counted, now.gauges), sources, base))
    return found


def sources_of(configuration: Configuration) -> dict[str, Sources]:
    """What feeds each exporter of spans."""
    pipelines = [pipeline for pipeline in configuration.pipelines if pipeline.signal == "traces"]
    exporters = dict.fromkeys(exporter for pipeline in pipelines for exporter in pipeline.exporters)
    return {
        exporter: _sources(configuration, [pipeline for pipeline in pipelines if exporter in pipeline.exporters])
        for exporter in exporters
    }


@dataclass(frozen=True, slots=True)
class Sources:
    """What feeds an exporter. exchanges: pipelines with what is observed. received: of each pipeline the receivers of OTLP.
    pipelines: ids."""

    exchanges: int
    received: tuple[str, ...]
    pipelines: frozenset[str]


def _sources(configuration: Configuration, pipelines: Sequence[Pipeline]) -> Sources:
    by_otlp = {id_ for id_, settings in configuration.components["receiver"].items() if settings.factory.encoded_spans}
    return Sources(
        exchanges=sum(1 for pipeline in pipelines if not by_otlp.issuperset(pipeline.receivers)),
        received=tuple(id_ for pipeline in pipelines for id_ in pipeline.receivers if id_ in by_otlp),
        pipelines=frozenset(pipeline.id for pipeline in pipelines),
    )


def _identity(exporter: str, since: Reading, sources: Sources, base: Reading) -> Identity:
    sums = since.sums
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
        observed=_total(sums, OBSERVED) * copies
        + _received(sums, sources.received)
        + _in_flight(exporter, base, sources),
        exported=sums.get((EXPORTED, own), 0),
        sampled_out=_total(sums, SAMPLED_OUT) * copies,
        excluded=_total(sums, EXCLUDED) * copies,
        skipped=_total(sums, SKIPPED) * copies,
        dropped=dict(+dropped),
        in_flight=_in_flight(exporter, since, sources),
        recovered=sums.get((RECOVERED, own), 0),
        kept=sums.get((KEPT, own), 0),
    )


def _in_flight(exporter: str, reading: Reading, sources: Sources) -> int:
    gauges = reading.gauges
    in_queue = gauges.get((EXPORTER_IN_FLIGHT, (("exporter", exporter),)), 0)
    to_come = _total(gauges, RECEIVER_IN_FLIGHT) * sources.exchanges
    return to_come + _held(gauges, sources.pipelines) + in_queue


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
