"""``attributes``: changes the attributes of spans, data points and log records, by the actions of the Collector's processor."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from threading import Lock
from typing import Any

import numpy as np
from pydantic import Field

from ..pipeline.component import ALL_SIGNALS, ComponentConfig, Context, Factory, Outcome, Signal, SpanConsumer
from ..pipeline.encoded import EncodedBatch
from ..pipeline.spans import SpanBatch
from .attribute_actions import ActionSettings, actions_of
from .column_actions import column_action
from .column_matching import ColumnMatch
from .matching import Match, MatchSettings
from .span_columns import Rows
from .values import MessageAttributes, as_text, value_of


class AttributesSettings(ComponentConfig):
    """include: only these are changed. exclude: of them not these."""

    actions: list[ActionSettings] = Field(min_length=1)
    include: MatchSettings | None = None
    exclude: MatchSettings | None = None


class AttributesProcessor:
    def __init__(self, settings: AttributesSettings, context: Context, consumer: SpanConsumer) -> None:
        self._consumer = consumer
        self._actions = actions_of(settings.actions)
        self._include = None if settings.include is None else Match(settings.include)
        self._exclude = None if settings.exclude is None else Match(settings.exclude)
        self._lock = Lock()  # guards the columns' side, which remembers what it found
        self._column_actions = [column_action(action) for action in self._actions]
        self._include_columns = None if self._include is None else ColumnMatch(self._include)
        self._exclude_columns = None if self._exclude is None else ColumnMatch(self._exclude)

    def start(self) -> None:
        """Nothing to do."""

    def consume(self, batch: SpanBatch) -> None:
        with self._lock:
            rows = self._rows(batch)
            if rows.any():
                for action in self._column_actions:
                    batch = action.applied(batch, rows)
        self._consumer.consume(batch)

    def consume_encoded(self, batch: EncodedBatch) -> Outcome:
        from .requests import decoded, encoded

        request = decoded(batch)
        for attributes in self._chosen(batch.signal, request):
            for action in self._actions:
                action.apply(attributes)
        return self._consumer.consume_encoded(encoded(batch, request))

    def shutdown(self, deadline: float) -> None:
        """Nothing is held back."""

    def _rows(self, batch: SpanBatch) -> Rows:
        rows: Rows = np.ones(len(batch), np.bool_)
        if self._include_columns is not None:
            rows = self._include_columns.rows(batch)
        if self._exclude_columns is not None:
            rows &= ~self._exclude_columns.rows(batch)
        return rows

    def _chosen(self, signal: Signal, request: Any) -> Iterator[MessageAttributes]:
        """The attributes to be changed."""
        from .requests import data_points, groups

        for resource, scope, records in groups(signal, request):
            include, exclude = (_of_group(match, resource, scope) for match in (self._include, self._exclude))
            if include is False:
                continue
            for record in records:
                if signal == "metrics":
                    if _is_chosen(include, exclude, lambda match: match.metric(record)):  # noqa: B023 - called at once
                        yield from (MessageAttributes(point.attributes) for point in data_points(record))
                    continue
                attributes = MessageAttributes(record.attributes)
                if _is_chosen(include, exclude, partial(_matches, signal, record, attributes)):
                    yield attributes


def _of_group(match: Match | None, resource: Any, scope: Any) -> Match | bool | None:
    """What is left to be asked of each record: a match; None if there is none to ask; False if none of them matches."""
    if match is None:
        return None
    matches = match.resource(MessageAttributes(resource.attributes)) and match.scope(scope.name, scope.version)
    return match if matches else False


def _is_chosen(include: Any, exclude: Any, matches: Any) -> bool:
    return (include is None or matches(include)) and not (exclude and matches(exclude))


def _matches(signal: Signal, record: Any, attributes: MessageAttributes, match: Match) -> bool:
    if signal == "traces":
        return match.span(record, attributes)
    return match.log(record, attributes, lambda: as_text(value_of(record.body)))


def _misfit(settings: AttributesSettings, signal: Signal) -> str | None:
    found = [
        f"{name}: {problem}"
        for name, match in (("include", settings.include), ("exclude", settings.exclude))
        if match is not None and (problem := match.misfit(signal)) is not None
    ]
    return "; ".join(found) or None


FACTORY = Factory(
    "processor",
    "attributes",
    AttributesSettings,
    AttributesProcessor,
    signals=ALL_SIGNALS,
    encoded_spans=True,
    misfit=_misfit,
)
