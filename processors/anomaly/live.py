"""A model that learns from the stream that it judges.

Baselines are renewed every few seconds, detector and calibrations now and then by a thread of their own, at first often. Until a
span's operation and the whole are known well enough there is no score.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event, Lock, Thread
from typing import Final

import numpy as np

from ...pipeline.defects import report_defect
from ...pipeline.scheduling import schedule_as_batch
from .features import Flags, Observations, Rows
from .holding import Holding
from .model import Model, Verdict

logger = logging.getLogger(__name__)

_REFRESHED_EVERY: Final = 5.0
_FIRST_TRAINED_AFTER: Final = 10.0
_TRAINED_EVERY: Final = 600.0


@dataclass(frozen=True, slots=True)
class Judged:
    """services: numbers of the keys' table. anomalous: what is to be shown as such."""

    verdict: Verdict
    services: Rows
    anomalous: Flags


class LiveModel:
    """threshold: scores below are never anomalous. Whoever makes observations for it, or asks its model, holds ``lock``."""

    def __init__(self, model: Model, threshold: float, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.model, self.lock, self.holding = model, Lock(), Holding()
        self._threshold, self._name, self._clock = threshold, name, clock
        self._refreshed = clock()
        self._stopping = Event()
        self._thread = Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def shutdown(self, deadline: float) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(max(0.0, deadline - time.monotonic()))

    def judge_and_learn(self, spans: Observations) -> Judged:
        """With ``lock`` held. What is learned of these counts from the next refresh on."""
        now = self._clock()
        if now - self._refreshed >= _REFRESHED_EVERY:
            self.model.baselines.refresh(now - self._refreshed)
            self._refreshed = now
        verdict = self.model.judge(spans)
        services = np.array(self.model.keys.service_numbers, np.int32)[spans.keys]
        self.holding.add(services, np.nan_to_num(verdict.scores, nan=0.0), spans.weights, now)
        held = self.holding.held(services)
        self.model.learn(spans, ~held)
        odd = verdict.scores >= self._threshold
        anomalous = odd & (held | (verdict.scores >= self.holding.one_a_minute(services)))
        return Judged(verdict, services, anomalous)

    def train(self) -> bool:
        """Make detector and calibrations anew; whether there was enough to learn from."""
        with self.lock:
            self.model.baselines.refresh(self._clock() - self._refreshed)
            self._refreshed = self._clock()
            samples = self.model.samples()
            if samples is None:
                return False
            vectors = self.model.prepared(samples)
        trained = self.model.trained(samples, vectors)
        with self.lock:
            first = not self.model.is_ready
            self.model.adopt(trained)
        if first:
            logger.info("Knows what is normal; spans get scores", extra={"processor": self._name})
        return True

    def _run(self) -> None:
        schedule_as_batch()
        pause = _FIRST_TRAINED_AFTER
        while not self._stopping.wait(pause):
            try:
                if self.train():
                    pause = min(2 * pause, _TRAINED_EVERY)
            except Exception as defect:
                report_defect("A component failed to learn. Going on with what it knows.", self._name, defect)
                pause = _TRAINED_EVERY
