"""``redaction``: removes attributes by their keys and masks what is secret in their values, as the Collector's processor does.

It is a second line: parsers emit no payload of their own accord, and SDKs should not. What it leaves is what no rule is about.
"""

from __future__ import annotations

from functools import cache, partial
from threading import Lock
from typing import TYPE_CHECKING

from ..pipeline.component import ALL_SIGNALS, Context, Factory, Outcome, SpanConsumer
from ..pipeline.encoded import EncodedBatch
from ..pipeline.spans import SpanBatch
from .column_redaction import ColumnRedaction
from .redaction_rules import RedactionSettings, Rules
from .resources import ResourceChanges

if TYPE_CHECKING:
    from .message_redaction import MessageRedaction


class RedactionProcessor:
    def __init__(self, settings: RedactionSettings, context: Context, consumer: SpanConsumer) -> None:
        self._consumer = consumer
        rules = Rules(settings)
        self._lock = Lock()  # guards the columns' side, which remembers what it found
        self._columns = ColumnRedaction(rules, settings.summary)
        self._messages = cache(partial(_of_messages, rules, settings.summary))
        self._resources = ResourceChanges(self._columns.redact_mapping)

    def start(self) -> None:
        """Nothing to do."""

    def consume(self, batch: SpanBatch) -> None:
        with self._lock:
            redacted = self._columns.redacted(self._resources.of_columns(batch))
        self._consumer.consume(redacted)

    def consume_encoded(self, batch: EncodedBatch) -> Outcome:
        from .requests import decoded, encoded

        request = decoded(batch)
        self._messages().redact(batch.signal, request)
        return self._consumer.consume_encoded(encoded(batch, request))

    def shutdown(self, deadline: float) -> None:
        """Nothing is held back."""


def _of_messages(rules: Rules, summary: str) -> MessageRedaction:
    """Made with the first request, because it imports opentelemetry-proto."""
    from .message_redaction import MessageRedaction

    return MessageRedaction(rules, summary)


FACTORY = Factory(
    "processor", "redaction", RedactionSettings, RedactionProcessor, signals=ALL_SIGNALS, encoded_spans=True
)
