"""From the kernel's exchange records to span batches, column by column.

The records of one drain arrive as a structured array whose dtype is the kernel's ``struct exchange``. Kernels in C take
them apart in one pass each (wirespan/native): ids, numbers and durations, and keys of what repeats. Those are looked up
in tables: the scope of a record (:mod:`.scopes`), the fragment of its operation (:mod:`.operations`), its process. Only
what was not seen lately is looked at by Python.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterator, Sequence
from ctypes import byref
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from ..native.key_table import KeyTable, Numbers
from ..native.library import ExchangeColumns, address, addresses, library, records_of
from ..pipeline.counters import Counters
from ..pipeline.spans import (
    AttributeValue,
    Fragment,
    FragmentColumn,
    FragmentTable,
    NumberArray,
    ResourceTable,
    SpanBatch,
    SpanKind,
    StatusCode,
    TextColumn,
    UInt64Array,
)
from .clock import Clock
from .deciding import Decisions, count_decided
from .edge_groups import told
from .ids import IdSource
from .instrumentation import Instrumentation, Sides, Verdict
from .operations import Operations
from .policies import Policies
from .process import ProcessTable, image_key
from .protocols.capturing import Capture
from .protocols.http1 import url_attribute
from .protocols.parser import Parser
from .routes import Routes
from .sampling import Sampling
from .scopes import Network, Records, Scopes
from .trace_context import TraceContexts, trace_states
from .waiting import IMPATIENT, Patience, Waiting

#: Entries of each table of what was looked up before; a full one starts anew. Full, and encoded, one takes 6 MB (of URLs
#: of 180 bytes, or of IPv6 addresses) to 8 MB (of processes).
LOOKUPS_KEPT = 4_096
#: heads and connections in each of two generations; an entry takes 24 to 48 bytes
HEADS_KEPT = 16_384
CONNECTIONS_KEPT = 16_384

#: enum number and enum part of columns.c
_NUMBERS: Final = (
    "server.port",
    "client.port",
    "network.peer.port",
    "process.pid",
    "wirespan.request.size",
    "wirespan.response.size",
)
_PARTS: Final = (
    "wirespan.queue.duration",
    "wirespan.request.duration",
    "wirespan.processing.duration",
    "wirespan.response.duration",
)
#: of a remark the bits that are the outcome; the flags lie above them, and above those what is known here only
_OUTCOME: Final = 0xFF
_INSTRUMENTED: Final = 1 << 15
_FOREIGN: Final = 1 << 14
#: above a remark, in a code: by which level the span was kept
_LEVEL: Final = 16


#: of records whose protocol is known, the fragments of their operations
CountEdges: TypeAlias = Callable[[Records, Sequence[Fragment]], None]
#: a batch of spans, and the records that it was made of
CountSpans: TypeAlias = Callable[[SpanBatch, Records], None]


@dataclass(frozen=True, slots=True)
class Abi:
    """The numbers that record.h gives to names, read from BTF."""

    role_client: int
    role_server: int
    direction_sent: int
    outcomes: dict[int, str]
    flag_peer_observed: int
    flag_send_start_unknown: int
    flag_pipelined: int
    flag_resent: int
    flag_message: int


class RecordColumns:
    """What records say in numbers, as struct columns of columns.c has it."""

    def __init__(self, records: Records) -> None:
        count = len(records)
        self.server_side = np.empty(count, np.bool_)
        self.peer_observed = np.empty(count, np.bool_)
        self.began = np.empty(count, np.uint64)
        self.duration = np.empty(count, np.uint64)
        self.remarks = np.empty(count, np.uint16)
        numbers = np.empty((len(_NUMBERS), count), np.int64)
        parts = np.empty((len(_PARTS), count), np.float64)
        places = addresses(
            self.server_side, self.peer_observed, self.began, self.duration, self.remarks, numbers, parts
        )
        columns = ExchangeColumns(*places)
        self.clamped: int = library().exchange_columns(byref(records_of(records)), byref(columns))
        self.numbers: dict[str, NumberArray] = {
            **dict(zip(_NUMBERS, numbers, strict=True)),
            **dict(zip(_PARTS, parts, strict=True)),
        }


class ExchangeTranslator:
    """Makes span batches of exchange records. Not thread-safe: it belongs to the drain's thread."""

    def __init__(
        self,
        abi: Abi,
        clock: Clock,
        ids: IdSource,
        processes: ProcessTable,
        counters: Counters,
        assume_peer_observed: Sequence[Network] = (),
        sampling: Sampling | None = None,
        policies: Policies | None = None,
        capture: Capture | None = None,
        instrumentation: Instrumentation | None = None,
        count_edges: CountEdges | None = None,
        count_spans: CountSpans | None = None,
        routes: Routes | None = None,
    ) -> None:
        """policies: if it is sampled by these. count_edges: told of the exchanges that the kernel does not count. count_spans: of
        all spans that are emitted."""
        self._abi = abi
        self._count_edges = count_edges
        self._count_spans = count_spans
        self._routes = routes
        self._clock = clock
        self._ids = ids
        self._processes = processes
        self._counters = counters
        self._assumed = tuple(assume_peer_observed)
        self._sampling = sampling or Sampling()
        self._decisions = Decisions(self._sampling, policies, ids)
        self._capture = capture or Capture()
        self._instrumentation = instrumentation or Instrumentation("skip")
        self.waiting = Waiting(self._instrumentation.patience)
        self._secret = np.frombuffer(os.urandom(16), np.uint64)
        self._resource_ids = KeyTable(LOOKUPS_KEPT)
        self._reset_scopes()
        self._reset_resources()

    def _reset_scopes(self) -> None:
        self._scopes = Scopes(self._abi.role_server, self._assumed, LOOKUPS_KEPT, CONNECTIONS_KEPT)
        # Of views, which are numbered by the scopes.
        self.operations = Operations(LOOKUPS_KEPT, HEADS_KEPT, self._capture)
        self._remarks = FragmentTable()

    def _reset_resources(self) -> None:
        self._resource_ids.clear()
        self._provisional = False
        self._resources = ResourceTable(LOOKUPS_KEPT)

    def _make_room(self) -> None:
        """Start new tables if the present ones are full, and now and then those in which processes are that have ended."""
        if self._processes.forget_ended_if_due():
            self._reset_resources()
        if self._scopes.full:
            self._reset_scopes()
        if self.operations.full:
            self.operations = Operations(LOOKUPS_KEPT, HEADS_KEPT, self._capture)
        if self._resources.full:
            self._reset_resources()

    def batch(self, records: Records) -> SpanBatch:
        """Spans of records that carry their heads (turn mode). Some may be kept in ``waiting`` until more is known."""
        return self._of_heads(records, self.waiting.patience_of_new(len(records)))

    def due(self, stopping: bool = False) -> Iterator[tuple[Records, Patience]]:
        """Records that waited long enough, for ``batch_of_due``; all of them if nothing more will be known."""
        if len(self.waiting):
            yield from self.waiting.take(self._instrumentation.has_learned(), stopping)

    def batch_of_due(self, records: Records, patience: Patience) -> SpanBatch:
        """Spans of records that waited. Some may go on waiting."""
        return self._of_heads(records, patience)

    def start_anew(self) -> None:
        """Forget what was looked up: a defect may have left it half done."""
        self._reset_scopes()
        self._reset_resources()

    def _of_heads(self, records: Records, patience: Patience) -> SpanBatch:
        self._make_room()
        scopes = self._scopes.of_records(records)
        views = self._scopes.views_of(scopes)
        operations, urls, contexts = self.operations.of_heads(records, views, self._scopes.views, self._scopes.origins)
        if self._routes is not None:
            server_side = records["connection"]["role"] == self._abi.role_server
            operations = self._routes.named(self.operations.table, operations, urls, server_side)
        if patience.is_new:
            self._count_ignored(contexts)
        return self._assemble(records, scopes, operations, urls, contexts, patience)

    def batch_of_summaries(self, records: Records, summaries: Sequence[tuple[Parser, Hashable]]) -> SpanBatch:
        """Spans of records whose parser and summary are known (segment mode)."""
        self._make_room()
        scopes = self._scopes.of_records(records)
        find, views = self.operations.of_summary, self._scopes.views
        numbers = self._scopes.views_of(scopes).tolist()
        found = [find(views[number], *summary) for number, summary in zip(numbers, summaries, strict=True)]
        operations, fragments = np.array(found, np.int64), self.operations.table.fragments
        if self._count_edges is not None:
            self._count_edges(records, [fragments[operation] for operation in found])
        if not self._sampling.active:
            return self._assemble(records, scopes, operations)
        errors = [operation for operation in set(found) if told(fragments[operation]).is_error]
        decided = self._decisions.of(records, np.isin(operations, errors))
        batch = self._assemble(records[decided.kept], scopes[decided.kept], operations[decided.kept])
        count_decided(self._counters, decided)
        return batch

    def _assemble(
        self,
        records: Records,
        scopes: Numbers,
        operations: Numbers,
        urls: TextColumn | None = None,
        contexts: TraceContexts | None = None,
        patience: Patience = IMPATIENT,
    ) -> SpanBatch:
        """The batch of these records; ``operations[i]`` is the fragment of record i in ``self.operations``."""
        columns = RecordColumns(records)
        if columns.clamped and patience.is_new:
            self._counters.add("wirespan.durations.clamped", columns.clamped)
        levels = records["connection"]["sampling"]
        server_side, observed = columns.server_side, columns.peer_observed
        if self._assumed:
            observed |= self._scopes.assumed_of(scopes)
        trace_id, client_span, server_span = self._ids.of_records(records)
        resource = self._resource_column(records)  # first: it tells what is known of new processes
        pids = columns.numbers["process.pid"].astype(np.int64, copy=False)
        sides = Sides(records, server_side, observed, pids, trace_id[:, 1].copy())
        verdict = self._instrumentation.judge(sides, contexts, patience)
        if verdict is not None:
            observed = observed & verdict.client_emitted
        start = self._clock.to_unix(columns.began)
        batch = SpanBatch(
            trace_id=trace_id,
            span_id=np.where(server_side, server_span, client_span),
            parent_span_id=np.where(server_side & observed, client_span, np.uint64(0)),
            start=start,
            end=start + columns.duration,
            kind=np.where(server_side, np.uint8(SpanKind.SERVER), np.uint8(SpanKind.CLIENT)),
            resource=resource,
            resources=self._resources,
            fragments=(  # in this order for who counts spans
                FragmentColumn(self._scopes.endpoints, self._scopes.endpoints_of(scopes)),
                FragmentColumn(self.operations.table, operations),
            ),
            numbers=columns.numbers,
            texts={} if urls is None else _by_kind(urls, server_side),
        )
        messages = columns.remarks & np.uint16(self._abi.flag_message << _OUTCOME.bit_length()) != 0
        if messages.any():
            # Whose SDK speaks for a server is known of clients alone.
            certain = observed if verdict is None else np.zeros_like(observed)
            _turn_around(batch, messages, server_side, certain, server_span)
        if contexts is not None and contexts.flagged:
            self._join(batch, contexts, sides.own, levels, columns.remarks)
        if verdict is not None and self._instrumentation.marks:
            columns.remarks[verdict.instrumented] |= np.uint16(_INSTRUMENTED)
        batch.fragments += self._remark_column(columns.remarks, levels)
        if verdict is not None and not self._instrumentation.marks:
            return self._kept(batch, records, verdict, patience)
        if self._count_spans is not None:
            self._count_spans(batch, records)
        return batch

    def _join(
        self,
        batch: SpanBatch,
        contexts: TraceContexts,
        own: UInt64Array,
        levels: npt.NDArray[np.uint8],
        remarks: npt.NDArray[np.uint16],
    ) -> None:
        """Put spans whose requests carry a trace context into its trace."""
        found = contexts.found()
        batch.trace_id[found] = contexts.trace_ids[found]
        orphans = found & (batch.parent_span_id == 0)
        batch.parent_span_id[orphans] = contexts.recorded_parents()[orphans]
        if self._sampling.active and found.any():
            sampled = found & (levels > 0)
            batch.trace_states = trace_states(self._sampling, levels, own, sampled)
            remarks[sampled] |= np.uint16(_FOREIGN)

    def _kept(self, batch: SpanBatch, records: Records, verdict: Verdict, patience: Patience) -> SpanBatch:
        """The spans that are to be emitted now."""
        left_out = verdict.instrumented | verdict.telemetry
        if verdict.waits.any():
            left_out = left_out | verdict.waits
        kept = batch.where(~left_out) if left_out.any() else batch
        if self._count_spans is not None:
            self._count_spans(kept, records if kept is batch else records[~left_out])
        # Nothing is accounted for before all else is done, so that what fails on the way is lost as a whole.
        if verdict.waits.any():
            self.waiting.add(records[verdict.waits], patience.deadline)
        for reason, mask in (("instrumented", verdict.instrumented), ("telemetry", verdict.telemetry)):
            if mask.any():
                self._counters.add("wirespan.exchanges.skipped", int(np.count_nonzero(mask)), reason=reason)
        return kept

    def _count_ignored(self, contexts: TraceContexts) -> None:
        for reason, count in (("invalid", contexts.invalid), ("truncated", contexts.cut)):
            if count:
                self._counters.add("wirespan.trace_contexts.ignored", count, reason=reason)

    def _resource_column(self, records: Records) -> Numbers:
        if self._provisional:  # kept for one batch: a look-up a record would only add to the trouble
            self._resource_ids.clear()
            self._provisional = False
        keys = np.empty(len(records), np.uint64)
        library().process_keys(byref(records_of(records)), address(self._secret), address(keys))
        return self._resource_ids.recall(keys, lambda row: self._resource_of(records[row]["process"]))

    def _resource_of(self, process: Any) -> int:
        image = image_key(process)
        attributes = self._processes.resource(*image)
        self._provisional |= not self._processes.is_final(image)
        self._instrumentation.meet(image, self._processes.declares_exporter(image))
        return self._resources.intern(attributes)

    def _remark_column(
        self, remarks: npt.NDArray[np.uint16], levels: npt.NDArray[np.uint8]
    ) -> tuple[FragmentColumn, ...]:
        """How an exchange ended without an answer, how it is to be read, and that it was sampled; often nothing."""
        if not remarks.any() and not levels.any():
            return ()
        codes, inverse = np.unique(remarks + (levels.astype(np.uint32) << _LEVEL), return_inverse=True)
        ids = np.array([self._remarks.intern(self._remark(code)) for code in codes.tolist()], np.int64)
        return (FragmentColumn(self._remarks, ids[inverse]),)

    def _remark(self, code: int) -> Fragment:
        attributes: list[tuple[str, AttributeValue]] = []
        flags = (code & 0xFFFF) >> _OUTCOME.bit_length()
        error = self._abi.outcomes.get(code & _OUTCOME)
        if error is not None:
            attributes.append(("error.type", error))
        if flags & self._abi.flag_send_start_unknown:
            attributes.append(("wirespan.timing", "after_send"))
        if flags & self._abi.flag_pipelined:
            attributes.append(("wirespan.exchange.pipelined", True))
        if flags & self._abi.flag_resent:
            attributes.append(("wirespan.request.resent", True))
        if flags & self._abi.flag_message:
            attributes.append(("wirespan.message.kind", "push"))
        if code & _INSTRUMENTED:
            attributes.append(("wirespan.instrumented", True))
        kept_by = self._sampling.kept_by(code >> _LEVEL)
        if code >> _LEVEL:
            attributes.append(("wirespan.sampling.probability", kept_by.probability))
            attributes.append(("span.metrics.skip", True))
        trace_state = "" if code & _FOREIGN else kept_by.trace_state
        status = StatusCode.UNSET if error is None else StatusCode.ERROR
        return Fragment(attributes=tuple(attributes), status=status, trace_state=trace_state)


def _turn_around(
    batch: SpanBatch,
    messages: npt.NDArray[np.bool_],
    server_side: npt.NDArray[np.bool_],
    observed: npt.NDArray[np.bool_],
    server_span: UInt64Array,
) -> None:
    """Make messages of these spans: a server produces them, and its span is the parent of who consumes them."""
    kinds = np.where(server_side, np.uint8(SpanKind.PRODUCER), np.uint8(SpanKind.CONSUMER))
    parents = np.where(~server_side & observed, server_span, np.uint64(0))
    batch.kind[messages] = kinds[messages]
    batch.parent_span_id[messages] = parents[messages]


def _by_kind(urls: TextColumn, server_side: npt.NDArray[np.bool_]) -> dict[str, TextColumn]:
    """The URLs under the names that they have at either end."""
    none = np.int64(-1)
    return {
        url_attribute(SpanKind.SERVER): TextColumn(urls.data, urls.begins, np.where(server_side, urls.lengths, none)),
        url_attribute(SpanKind.CLIENT): TextColumn(urls.data, urls.begins, np.where(server_side, none, urls.lengths)),
    }
