"""Exemplars of the kernel's histograms: spans, which user space knows, for the series of their edges.

One for each power of two and each look is kept, the latest. Protocol and status class are what the parser tells; where the
kernel could not tell them for certain, the series without has the exemplar.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..native.durations import DurationTable
from ..pipeline.spans import AttributeValue, Fragment, SpanKind
from .edge_groups import EdgeNames, peer_is_on_machine, told
from .edges import SERIES_KEPT, ResourceItems, Series
from .histogram import limits
from .kept_series import KeptSeries

#: slots of a power of two
_OCTAVE: Final = 8

Exemplars = npt.NDArray[Any]


class ExemplarAccounts:
    """Not thread-safe."""

    def __init__(self, limit: int = SERIES_KEPT) -> None:
        self.table = DurationTable(limits()[:-1:_OCTAVE].tolist(), counting=False, exemplars=True)
        self._kept: KeptSeries[Series] = KeptSeries(self.table, limit)

    def row_of(self, series: Series) -> int:
        """-1 if there is no room."""
        row = self._kept.row_of(series)
        if row is not None:
            return row
        if self._kept.is_full:
            self._kept.refuse()
            return -1
        return self._kept.add(series)

    def take(self) -> dict[Series, Exemplars]:
        """Those since the last time."""
        series, rows = self._kept.all()
        taken = self.table.take_exemplars(rows)
        is_there = taken["span_id"] != 0
        found = np.flatnonzero(is_there.any(axis=1))
        self._kept.end_look(rows[found].tolist())
        return {series[one]: taken[one][is_there[one]] for one in found.tolist()}

    def make_room(self) -> bool:
        """If a series was refused, let idle ones give way. Whether cells are to be looked at anew."""
        return bool(self._kept.make_room())


def edge_series(record: Any, operation: Fragment, resource: ResourceItems, names: EdgeNames) -> Series:
    """The series of a record, of shape (), with this operation, as the kernel would tell it."""
    connection = record["connection"]
    kind = names.kinds[int(connection["role"])]
    port = int(connection["local_port" if kind is SpanKind.SERVER else "remote_port"])
    error = names.outcomes[int(record["outcome"])]
    attributes = dict(operation.attributes)
    return Series(
        resource,
        kind,
        port,
        names.transports[int(connection["transport"])],
        str(attributes.get("network.protocol.name", "")),
        "" if error else _status_class(operation, attributes, names),
        error,
        names.peers[peer_is_on_machine(connection, names.flags_on_machine)],
    )


def _status_class(operation: Fragment, attributes: Mapping[str, AttributeValue], names: EdgeNames) -> str:
    """As bpf/status.h has it."""
    status, code = attributes.get("http.response.status_code"), attributes.get("wirespan.dns.response.code")
    if isinstance(status, int):
        return names.statuses.get(status // 100, "")
    if code is not None:
        return {"NOERROR": "success", "NXDOMAIN": "client_error"}.get(str(code), "server_error")
    if "db.system.name" in attributes:
        return told(operation).status
    return ""


def by_known_series(found: Mapping[Series, Exemplars], known: Container[Series]) -> dict[Series, Exemplars]:
    """The same by the series that there are: less may be told of them."""
    by_series: dict[Series, Exemplars] = {}
    for series, exemplars in found.items():
        less = (series, series._replace(status=""), series._replace(protocol="", status=""))
        target = next((one for one in less if one in known), None)
        if target is not None:
            others = by_series.get(target)
            by_series[target] = exemplars if others is None else np.concatenate((others, exemplars))
    return by_series
