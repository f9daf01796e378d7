"""``resource``: changes the attributes of resources, by the actions of the Collector's processor of that name."""

from __future__ import annotations

from pydantic import Field

from ..pipeline.component import ALL_SIGNALS, ComponentConfig, Context, Factory, Outcome, SpanConsumer
from ..pipeline.encoded import EncodedBatch
from ..pipeline.spans import SpanBatch
from .attribute_actions import ActionSettings, actions_of
from .resources import ResourceChanges
from .values import Attributes


class ResourceSettings(ComponentConfig):
    attributes: list[ActionSettings] = Field(min_length=1)


class ResourceProcessor:
    def __init__(self, settings: ResourceSettings, context: Context, consumer: SpanConsumer) -> None:
        self._actions = actions_of(settings.attributes)
        self._resources = ResourceChanges(self._change)
        self._consumer = consumer

    def start(self) -> None:
        """Nothing to do."""

    def consume(self, batch: SpanBatch) -> None:
        self._consumer.consume(self._resources.of_columns(batch))

    def consume_encoded(self, batch: EncodedBatch) -> Outcome:
        return self._consumer.consume_encoded(self._resources.of_request(batch))

    def shutdown(self, deadline: float) -> None:
        """Nothing is held back."""

    def _change(self, attributes: Attributes) -> None:
        for action in self._actions:
            action.apply(attributes)


FACTORY = Factory("processor", "resource", ResourceSettings, ResourceProcessor, signals=ALL_SIGNALS, encoded_spans=True)
