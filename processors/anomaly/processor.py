"""``anomaly`` in a pipeline: spans in columns get columns, requests of OTLP are decoded, marked and encoded again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Final

import numpy as np
import numpy.typing as npt
from pydantic import Field

from ...pipeline.component import ComponentConfig, Context, Factory, Outcome, SpanConsumer
from ...pipeline.duration import Duration, within
from ...pipeline.encoded import EncodedBatch
from ...pipeline.spans import Fragment, FragmentColumn, FragmentTable, SpanBatch, TextColumn
from .columns import ColumnReader
from .detector import DetectorName
from .features import Observations, values_of
from .keys import KeyTable, Level
from .live import Judged, LiveModel
from .marking import ANOMALY, DRIVERS, LEARNING, SCORE, STATE, mark
from .model import Model
from .words import drivers_of, in_words

_NORMAL, _ANOMALOUS, _LEARNING = range(3)
_OUTCOMES: Final = ("normal", "anomalous", "learning")
_SHARED: Final = "other"


class AnomalySettings(ComponentConfig):
    """max_keys: operations, and what is above them. learn_after: spans of an operation before they get a score. min_change: of
    durations; less is no anomaly. threshold: of scores; below it nothing is anomalous."""

    detector: DetectorName = "isolation_forest"
    threshold: float = Field(default=0.999, ge=0.9, lt=1)
    learn_after: int = Field(default=100, ge=20, le=100_000)
    min_change: Annotated[Duration, within("1us", "1h", or_zero=True)] = 0.001
    max_keys: int = Field(default=1000, ge=100, le=100_000)
    seed: int = Field(default=0, ge=0, lt=2**32)


class AnomalyProcessor:
    def __init__(self, settings: AnomalySettings, context: Context, consumer: SpanConsumer) -> None:
        self._context, self._consumer = context, consumer
        self._keys = KeyTable(settings.max_keys)
        model = Model(self._keys, settings.detector, settings.seed, settings.min_change, settings.learn_after)
        self.live = LiveModel(model, settings.threshold, context.id)
        self._reader = ColumnReader(self._keys)
        self._states = FragmentTable()
        for attribute in ((ANOMALY, False), (ANOMALY, True), (STATE, LEARNING)):
            self._states.intern(Fragment(attributes=(attribute,)))
        names = {"processor": context.id, "pipeline": context.pipeline}
        context.counters.gauge("wirespan.anomaly.keys", lambda: len(self._keys), **names)
        context.counters.gauge("wirespan.anomaly.held_services", lambda: self.live.holding.count, **names)

    def start(self) -> None:
        self.live.start()

    def shutdown(self, deadline: float) -> None:
        self.live.shutdown(deadline)

    def consume(self, batch: SpanBatch) -> None:
        if not len(batch):
            return
        with self.live.lock:
            spans = self._reader.observations(batch)
            judged = self.live.judge_and_learn(spans)
            words = self._words(spans, judged)
        self._count(spans, judged)
        self._consumer.consume(self._marked(batch, judged, words))

    def consume_encoded(self, batch: EncodedBatch) -> Outcome:
        from google.protobuf.message import DecodeError
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        from .otlp_spans import of_messages

        try:
            request = ExportTraceServiceRequest.FromString(batch.data)
        except DecodeError:  # whoever decodes it next says so
            return self._consumer.consume_encoded(batch)
        found = list(of_messages(request))
        if found:
            self._mark_messages(found)
            batch = EncodedBatch("traces", request.SerializeToString(), batch.items)
        return self._consumer.consume_encoded(batch)

    def _mark_messages(self, found: Sequence[tuple[Any, Any]]) -> None:
        with self.live.lock:
            keys = np.array([self._keys.row(facts.identity) for _, facts in found], np.int32)
            values = values_of(np.array([facts.steps() for _, facts in found]))
            errors = np.array([facts.error for _, facts in found])
            spans = Observations(keys, values, errors, np.array([facts.weight for _, facts in found], np.float32))
            judged = self.live.judge_and_learn(spans)
            words = self._words(spans, judged)
        self._count(spans, judged)
        for row, ((span, _), score) in enumerate(zip(found, judged.verdict.scores.tolist(), strict=True)):
            mark(span, None if np.isnan(score) else score, bool(judged.anomalous[row]), words.get(row, ""))

    def _words(self, spans: Observations, judged: Judged) -> dict[int, str]:
        """By row, of what is anomalous."""
        rows = np.flatnonzero(judged.anomalous)
        drivers, baselines = drivers_of(judged.verdict.vectors[rows]), self.live.model.baselines
        keys = spans.keys[rows].tolist()
        return {
            row: in_words(baselines, key, spans.values[row], driver)
            for row, key, driver in zip(rows.tolist(), keys, drivers, strict=True)
        }

    def _marked(self, batch: SpanBatch, judged: Judged, words: dict[int, str]) -> SpanBatch:
        """The batch with columns more; that of others stays as it is."""
        texts = dict(batch.texts)
        if words:
            texts[DRIVERS] = _texts(words, len(batch))
        states = FragmentColumn(self._states, _states(judged))
        numbers = {**batch.numbers, SCORE: judged.verdict.scores}
        return replace(batch, numbers=numbers, texts=texts, fragments=(*batch.fragments, states))

    def _count(self, spans: Observations, judged: Judged) -> None:
        counters, names = self._context.counters, {"processor": self._context.id}
        outcomes = _states(judged)
        codes, counts = np.unique(judged.services.astype(np.int64) * len(_OUTCOMES) + outcomes, return_counts=True)
        for code, count in zip(codes.tolist(), counts.tolist(), strict=True):
            service, outcome = divmod(code, len(_OUTCOMES))
            about = {"service.name": self._keys.services[service] or _SHARED, "outcome": _OUTCOMES[outcome]}
            counters.add("wirespan.anomaly.spans", count, **names, **about)
        shared = int(np.count_nonzero(self._keys.level_array()[spans.keys] < Level.OPERATION))
        if shared:
            counters.add("wirespan.anomaly.overflow", shared, **names)


def _states(judged: Judged) -> npt.NDArray[np.int64]:
    """(n,) of each span which of _OUTCOMES."""
    known = np.where(judged.anomalous, _ANOMALOUS, _NORMAL)
    return np.where(np.isnan(judged.verdict.scores), _LEARNING, known)


def _texts(words: dict[int, str], count: int) -> TextColumn:
    encoded = {row: text.encode("utf-8", "replace") for row, text in words.items()}
    rows = np.array(list(encoded))
    lengths = np.full(count, -1, np.int64)
    lengths[rows] = [len(text) for text in encoded.values()]
    begins = np.zeros(count, np.int64)
    begins[rows] = np.cumsum(lengths[rows]) - lengths[rows]
    return TextColumn(np.frombuffer(b"".join(encoded.values()), np.uint8), begins, lengths)


FACTORY = Factory("processor", "anomaly", AnomalySettings, AnomalyProcessor, encoded_spans=True)
