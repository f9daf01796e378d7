"""What a configuration describes, running, and how another one takes its place while data flows.

A new configuration is read and checked as a whole, and its components are made and prepared; until then nothing has changed, and
a mistake changes nothing. Components that are the same in both run on: a receiver keeps its sockets and its programs in the
kernel, an exporter its queue. Receivers that are to feed other pipelines than before are held back (:mod:`.switch`) while what is
no longer wanted stops, in the order of a shutdown, so that it drains and flushes; then what is new starts. If it cannot, the
configuration before is built again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Final, Literal, TypeAlias

from ..pipeline.component import StartError
from ..pipeline.counters import Counters
from .config import Configuration, used_components
from .document import ConfigurationError
from .graph import Graph
from .identity import Identity, Reading, identities, read, sources_of
from .tally import Tally
from .telemetry import Telemetry
from .watchdog import watched

logger = logging.getLogger(__name__)

#: What is under way finds room in an exporter's queue within this time, or the configuration stays.
PAUSE_SECONDS: Final = 2.0
#: What is stopped by a new configuration drains and flushes by then. With a shutdown right after it this ends in the time that
#: Kubernetes gives.
REPLACE_SECONDS: Final = 5.0


class CannotGoOn(Exception):
    """Neither the new configuration runs nor the one before."""


Result: TypeAlias = Literal["replaced", "unchanged", "invalid", "failed"]


class Service:
    """telemetry: follows the configuration, too."""

    def __init__(self, configuration: Configuration, counters: Counters, telemetry: Telemetry) -> None:
        self.configuration = configuration
        self.tally = Tally()
        self._counters = counters
        self._telemetry = telemetry
        self._since: dict[str, Reading] = {}
        self._graph: Graph | None = None

    def start(self) -> None:
        """Raises StartError; what was started until then is left to ``shutdown``."""
        self._graph = Graph(self.configuration, self._counters, self.tally)
        self._graph.start()

    @property
    def made(self) -> bool:
        """Whether there is something to shut down."""
        return self._graph is not None

    @property
    def received(self) -> bool:
        """Whether any receiver was started."""
        return self._graph is not None and self._graph.received

    def facts(self) -> dict[str, object]:
        return {} if self._graph is None else self._graph.facts()

    def identities(self) -> list[Identity]:
        """Of each exporter, since what feeds it is as it is."""
        return identities(self._counters, self.configuration, self._since)

    def shutdown(self, deadline: float) -> bool:
        """Whether all stopped well."""
        return self._graph is None or self._graph.shutdown(deadline)

    def reload(self, configured: Callable[[], Configuration]) -> Result:
        """Put what is configured now in the place of what runs. Raises CannotGoOn."""
        result = self._reloaded(configured)
        self._counters.add("wirespan.reloads", 1, result=result)
        return result

    def _reloaded(self, configured: Callable[[], Configuration]) -> Result:
        try:
            configuration = configured()
        except ConfigurationError as error:
            for problem in error.problems:
                logger.error(str(problem))
            logger.error(
                "The configuration is not valid. Nothing was changed.", extra={"problems": len(error.problems)}
            )
            return "invalid"
        for warning in configuration.warnings:
            logger.warning(str(warning))
        if _means_the_same(configuration, self.configuration):
            self.configuration = configuration
            logger.info("The configuration says what it did before. Nothing was changed.")
            return "unchanged"
        before = self.configuration
        try:
            self._telemetry.follow(configuration.telemetry)
            replaced = self._replace(configuration)
        except StartError as error:
            logger.error("The new configuration cannot run. Nothing was changed.", extra={"error": str(error)})
            replaced = False
        if not replaced:
            self._follow_again(before)
        return "replaced" if replaced else "failed"

    def _follow_again(self, before: Configuration) -> None:
        try:
            self._telemetry.follow(before.telemetry)
        except StartError as error:
            raise CannotGoOn(str(error)) from error

    def _replace(self, configuration: Configuration) -> bool:
        """Whether the new one runs; if not, the one before does, again. Raises StartError if nothing has changed yet."""
        old = self._graph
        assert old is not None
        new = Graph(configuration, self._counters, self.tally, before=old)
        done = new.changes_from(old)
        try:
            new.prepare()
            began = time.monotonic()
            self._pause(new, old)
        except StartError:
            new.discard()
            raise
        try:
            _stop(old, successor=new)
            self._rebase(configuration)
            replaced = self._started(new, old, configuration)
        finally:
            assert self._graph is not None
            self._graph.resume()
        self._count_gap(done["restarted"], time.monotonic() - began)
        if replaced:
            extra = {**done, "seconds": round(time.monotonic() - began, 3)}
            logger.info("The configuration was replaced", extra=extra)
        return replaced

    def _pause(self, new: Graph, old: Graph) -> None:
        if not new.pause(old, PAUSE_SECONDS):
            old.resume()
            raise StartError("what is under way found no room in the queues of exporters in time")

    def _started(self, new: Graph, old: Graph, configuration: Configuration) -> bool:
        try:
            new.start()
        except StartError as error:
            logger.error("The new configuration cannot run. Going back to the one before.", extra={"error": str(error)})
            _stop(new, successor=old)
            new.discard()
            self._graph = Graph(self.configuration, self._counters, self.tally, before=old)
            try:
                self._graph.start()
            except StartError as again:
                raise CannotGoOn(str(again)) from again
            return False
        self._graph, self.configuration = new, configuration
        return True

    def _rebase(self, configuration: Configuration) -> None:
        """Exporters that are fed by others than before are accounted for anew; the accounts that end are logged."""
        before, after = sources_of(self.configuration), sources_of(configuration)
        if before == after:
            return
        now = read(self._counters)
        for identity in identities(self._counters, self.configuration, self._since, now):
            if before[identity.exporter] != after.get(identity.exporter):
                logger.info("exchanges", extra=identity.fields())
        self._since = {
            exporter: self._since.get(exporter, Reading()) if before.get(exporter) == sources else now
            for exporter, sources in after.items()
        }

    def _count_gap(self, restarted: list[str], seconds: float) -> None:
        for component in restarted:
            kind, _, id_ = component.partition(" ")
            if kind == "receiver":
                self._counters.add_seconds("wirespan.receiver.gap", seconds, receiver=id_)


def _stop(graph: Graph, successor: Graph) -> None:
    with watched(REPLACE_SECONDS):
        graph.shutdown(time.monotonic() + REPLACE_SECONDS, successor)


def _means_the_same(one: Configuration, other: Configuration) -> bool:
    """Also if it is written otherwise, or differs in what does not run."""
    return _running(one) == _running(other)


def _running(configuration: Configuration) -> Mapping[str, object]:
    used = used_components(configuration.pipelines, configuration.extensions)
    return {
        "components": {
            (kind, id_): settings
            for kind, by_id in configuration.components.items()
            for id_, settings in by_id.items()
            if id_ in used[kind]
        },
        "pipelines": configuration.pipelines,
        "extensions": configuration.extensions,
        "telemetry": configuration.telemetry,
    }
