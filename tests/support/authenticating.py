"""Extensions that know who sends, made and started for a test."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from wirespan.pipeline.component import Context, Factory
from wirespan.pipeline.counters import Counters


@contextmanager
def running(factory: Factory, counters: Counters | None = None, **settings: object) -> Iterator[Any]:
    extension = factory.create(
        factory.config.model_validate(settings), Context("under test", Counters() if counters is None else counters)
    )
    extension.start()
    try:
        yield extension
    finally:
        extension.shutdown(time.monotonic())


def basic(user: str, password: str) -> Mapping[str, str]:
    """The header that shows them."""
    return {"authorization": f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"}


def reloads(counters: Counters, outcome: str) -> int:
    key = ("wirespan.credentials.reloads", (("component", "under test"), ("outcome", outcome)))
    return counters.snapshot().get(key, 0)
