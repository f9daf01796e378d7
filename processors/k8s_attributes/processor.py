"""The processor: follows pods, and puts what is known of them into resources and spans as they pass.

What a resource becomes is remembered until something is new about pods, so that a batch costs one look at each
distinct resource at most. Nothing is held back until more is known: it passes, and says that its pod is not known.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from functools import partial
from threading import Lock
from typing import Final
from urllib.parse import quote

from ...pipeline.component import ALL_SIGNALS, Context, Factory, Outcome, SpanConsumer, StartError
from ...pipeline.encoded import EncodedBatch
from ...pipeline.spans import SpanBatch
from ..patterns import PatternSet
from ..resources import ResourceChanges
from ..values import Attributes
from .api_server import ApiServer, connect
from .attributes import describe, is_of_pod
from .peer_columns import PeerColumns
from .peer_index import PeerIndex
from .pod_table import CONNECTION, PodTable
from .pods import PodReader
from .reflector import Reflector, Sink
from .selectors import field_selector, label_selector
from .settings import AssociationSource, K8sAttributesSettings

logger = logging.getLogger(__name__)

_PODS: Final = "/api/v1/pods"
_SERVICES: Final = "/api/v1/services"
_NOT_ENDED: Final = {"fieldSelector": "status.phase!=Succeeded,status.phase!=Failed"}
#: senders of requests whose resources are remembered; then all are forgotten
SENDERS_KEPT: Final = 1_024
_MISSING: Final = "wirespan.k8s.metadata.missing"
#: of the silence after which nothing is believed any more, the part after which a watch is begun anew
_PATIENCE: Final = 0.5


class K8sAttributesProcessor:
    def __init__(self, settings: K8sAttributesSettings, context: Context, consumer: SpanConsumer) -> None:
        self._settings, self._context, self._consumer = settings, context, consumer
        self._wanted = frozenset(settings.extract.metadata)
        associations = [tuple(map(_identity, one.sources)) for one in settings.pod_association]
        excluded = PatternSet([pod.name for pod in settings.exclude.pods])
        self._pods = PodTable(PodReader(settings.extract), associations, excluded.found_in)
        well_known = settings.extract.service_attributes.well_known_labels
        self._peers = PeerIndex.of_pods(settings.peers.stale_after, well_known)
        self._services = PeerIndex.of_services(settings.peers.stale_after)
        self._peer_columns = PeerColumns(self._peers, self._services, context.counters, context.id)
        self._reflectors: list[Reflector] = []
        self._lock = Lock()  # guards what follows
        self._seen = (-1, False)
        self._known: dict[tuple[bool, str], ResourceChanges] = {}
        for index, of in (("pods", self._pods), ("peers", self._peers), ("services", self._services)):
            context.counters.gauge("wirespan.k8s.objects", of.__len__, processor=context.id, index=index)

    def facts(self) -> Mapping[str, int | str]:
        return {"pods": len(self._pods), "peers": len(self._peers), "services": len(self._services)}

    def start(self) -> None:
        settings = self._settings
        node = self._node()
        server = connect(settings.auth_type, settings.context)
        path, selectors = _selected(settings, node)
        if not settings.peers.enabled:
            pods = self._follow(server, path, selectors, self._pods)
        elif not selectors and path == _PODS:  # they are the same pods
            pods = self._follow(server, path, {}, _Both(self._pods, self._peers))
        else:
            self._follow(server, path, selectors, self._pods)
            pods = self._follow(server, _PODS, _NOT_ENDED, self._peers)
        self._peers.last_news = lambda: pods.last_news
        if settings.peers.enabled and settings.peers.services:
            services = self._follow(server, _SERVICES, {}, self._services)
            self._services.last_news = lambda: services.last_news
        logger.info("Following pods", extra={"processor": self._context.id, "server": server.host, "node": node})
        if settings.wait_for_metadata:
            self._wait()

    def consume(self, batch: SpanBatch) -> None:
        batch = self._changes(False, "").of_columns(batch)
        if self._settings.peers.enabled:
            batch = self._peer_columns.of(batch)
        self._consumer.consume(batch)

    def consume_encoded(self, batch: EncodedBatch) -> Outcome:
        sender = batch.sender if self._pods.looks_at_senders else ""
        return self._consumer.consume_encoded(self._changes(batch.signal == "metrics", sender).of_request(batch))

    def shutdown(self, deadline: float) -> None:
        """Nothing is held back."""
        for reflector in self._reflectors:
            reflector.stop(max(0.0, deadline - time.monotonic()))

    def _node(self) -> str:
        chosen = self._settings.filter
        if not chosen.node_from_env_var:
            return chosen.node
        node = os.environ.get(chosen.node_from_env_var, "")
        if not node:
            raise StartError(
                f"filter.node_from_env_var: {chosen.node_from_env_var} is not set; give the container the variable by the "
                "downward API (fieldRef: spec.nodeName), or name the node by filter.node"
            )
        return node

    def _follow(self, server: ApiServer, path: str, selectors: Mapping[str, str], sink: Sink) -> Reflector:
        silence = self._settings.peers.stale_after * _PATIENCE
        context = self._context
        reflector = Reflector(server, path, selectors, sink, silence, context.counters, context.id)
        self._reflectors.append(reflector)
        reflector.start()
        return reflector

    def _wait(self) -> None:
        until = time.monotonic() + self._settings.wait_for_metadata_timeout
        for reflector in self._reflectors:
            if not reflector.synced.wait(max(0.0, until - time.monotonic())):
                self.shutdown(time.monotonic())
                raise StartError(
                    f"pods and Services were not known in {self._settings.wait_for_metadata_timeout:g} s; look at the log for what the "
                    "API server says, or start without wait_for_metadata"
                )

    def _changes(self, of_metrics: bool, sender: str) -> ResourceChanges:
        """What resources become by what is known now. sender: the address that they came from, if that may matter."""
        with self._lock:
            seen = (self._pods.version, self._peers.stale)
            if self._seen != seen or len(self._known) >= SENDERS_KEPT:
                self._seen = seen
                self._known.clear()
            found = self._known.get((of_metrics, sender))
            if found is None:
                change = partial(self._change, of_metrics=of_metrics, sender=sender)
                found = self._known[of_metrics, sender] = ResourceChanges(change)
            return found

    def _change(self, attributes: Attributes, of_metrics: bool, sender: str) -> None:
        match = self._pods.find(attributes, sender, by_address=not self._peers.stale)
        if match is not None:
            attributes.pop(_MISSING, None)
            describe(attributes, match, self._wanted, keep_instance=of_metrics)
        elif is_of_pod(attributes):
            attributes[_MISSING] = True


def _identity(source: AssociationSource) -> str:
    return CONNECTION if source.from_ == "connection" else source.name


class _Both:
    """Told of the same pods."""

    def __init__(self, *sinks: Sink) -> None:
        self._sinks = sinks

    def listing(self) -> None:
        for sink in self._sinks:
            sink.listing()

    def put(self, item: dict[str, object]) -> None:
        for sink in self._sinks:
            sink.put(item)

    def remove(self, item: dict[str, object]) -> None:
        for sink in self._sinks:
            sink.remove(item)

    def listed(self, unknown_seconds: float) -> None:
        for sink in self._sinks:
            sink.listed(unknown_seconds)


def _selected(settings: K8sAttributesSettings, node: str) -> tuple[str, dict[str, str]]:
    """Where the pods are listed, and by which selectors."""
    chosen = settings.filter
    path = f"/api/v1/namespaces/{quote(chosen.namespace, safe='')}/pods" if chosen.namespace else _PODS
    selectors = {
        "fieldSelector": field_selector(node, chosen.fields),
        "labelSelector": label_selector(chosen.labels),
    }
    return path, {key: value for key, value in selectors.items() if value}


FACTORY = Factory(
    "processor",
    "k8s_attributes",
    K8sAttributesSettings,
    K8sAttributesProcessor,
    deprecated_names=("k8sattributes",),
    signals=ALL_SIGNALS,
    encoded_spans=True,
)
