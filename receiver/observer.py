"""What was drained from the kernel's rings, as span batches.

Two rings hold exchanges that the kernel delimited by turns (short and long request heads), a third the segments of
connections whose requests overlap. The clock is read after the rings, so that every time in a batch lies before
the newest clock sample.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import TypeVar

from ..pipeline.counters import Counters
from ..pipeline.defects import report_defect
from ..pipeline.spans import SpanBatch
from .clock import Clock, kernel_now
from .exchanges import CountEdges, CountSpans, ExchangeTranslator
from .ids import IdSource
from .in_hand import InHand
from .instrumentation import Instrumentation, Mode
from .kernel.session import KernelSession
from .process import ProcessTable
from .process_selection import ProcessRules, ProcessSelection, selected_of
from .protocols.capturing import Capture, CapturingRedisParser
from .protocols.parser import Parser
from .protocols.registry import RESP_PARSER
from .routes import Routes
from .scopes import Network, Records
from .segments import HOLD_BACK_NS, SegmentReader

_DEFECT = "Exchanges could not be made spans by a defect. Dropping them."
#: Of segments drained at once, for each record that may be: one can hold hundreds of pipelined commands, each of which is an
#: exchange that takes some 2 KB until it is sent.
_SEGMENT_BYTES = 128
_Result = TypeVar("_Result")


class Observer:
    """Belongs to the drain's thread."""

    def __init__(
        self,
        session: KernelSession,
        counters: Counters,
        assume_peer_observed: Sequence[Network] = (),
        rules: ProcessRules | None = None,
        capture: Capture | None = None,
        instrumented: Mode = "skip",
        count_edges: CountEdges | None = None,
        count_spans: CountSpans | None = None,
        routes: Sequence[str] = (),
    ) -> None:
        """rules: which processes are selected; None: all. capture: what is emitted that is not by default. count_edges: told of
        the exchanges that the kernel does not count. count_spans: of all spans. routes: of HTTP."""
        self._session = session
        self._counters = counters
        self._clock = Clock(counters)
        self.processes = processes = ProcessTable(counters)
        self._selection = (
            ProcessSelection(rules, processes, session.left_out, session.abi, counters) if rules is not None else None
        )
        self._in_hand = InHand()
        self._translator = ExchangeTranslator(
            session.abi,
            self._clock,
            IdSource(session.id_key, session.boot_id),
            processes,
            counters,
            assume_peer_observed,
            session.sampling,
            session.policies,
            capture,
            Instrumentation(instrumented, session.settle_ns / 1e9),
            count_edges,
            count_spans,
            Routes(routes) if routes else None,
        )
        self._segments = SegmentReader(
            session.abi,
            session.row_dtype,
            session.segment_dtype,
            {session.protocol_resp: CapturingRedisParser(capture) if capture and capture.of_redis else RESP_PARSER},
            counters,
            self._in_hand,
            session.settle_ns,
            session.request_timeout_ns,
        )

    def drain(self, limit: int) -> tuple[list[SpanBatch], bool]:
        """Batches of up to ``limit`` records a ring, or of some more exchanges where segments hold several each, and whether a
        ring held at least that many."""
        session = self._session
        if self._selection is not None:
            self._selection.forget()
        drained_to = kernel_now()  # or later: this thread may wait for a core at any line
        with session.short_exchanges.drained(limit) as short, session.long_exchanges.drained(limit) as long:
            data, extents, more = session.segments.drain(limit, limit * _SEGMENT_BYTES)
            self._clock.sample()
            batches = [batch for rows in (short, long) if len(rows) for batch in self._of_exchanges(rows)]
            batches += self._of_due()
            full = more or max(len(short), len(long)) >= limit
        batches += self._of_rows(*self._segments.read(data, extents, None if more else drained_to))
        return batches, full

    def last(self) -> list[SpanBatch]:
        """What was still held back, once nothing is attached any more."""
        batches = self._of_due(stopping=True)
        batches += self._of_rows(*self._segments.read(b"", [], kernel_now() + HOLD_BACK_NS))
        return batches + self._of_rows(*self._segments.stop())

    def _of_exchanges(self, rows: Records) -> list[SpanBatch]:
        selection = self._selection
        if selection is not None:
            selected = self._attempt(len(rows), lambda: selection.of_rows(rows)[0])
            if selected is None:
                return []
            rows = selected
        return self._translated(rows, lambda: self._translator.batch(rows))

    def _of_due(self, stopping: bool = False) -> list[SpanBatch]:
        batches: list[SpanBatch] = []
        for records, patience in self._translator.due(stopping):
            batches += self._translated(records, partial(self._translator.batch_of_due, records, patience))
        return batches

    def _translated(self, records: Records, translate: Callable[[], SpanBatch]) -> list[SpanBatch]:
        batch = self._attempt(len(records), translate)
        if batch is None:
            self._translator.start_anew()
            return []
        self._in_hand.take(len(batch))
        return [batch]

    def handed_on(self, batch: SpanBatch) -> None:
        """What is next has taken it."""
        self._in_hand.let_go(len(batch))

    def _attempt(self, exchanges: int, work: Callable[[], _Result]) -> _Result | None:
        """What this work on so many exchanges gives; None, and they are dropped, if it fails by a defect."""
        try:
            return work()
        except Exception as defect:
            self._counters.add("wirespan.exchanges.dropped", exchanges, reason="defect")
            report_defect(_DEFECT, "ebpf", defect, dropped_exchanges=exchanges)
            return None

    def waiting(self) -> int:
        """How many exchanges have not been handed on: they wait until it is known whether an SDK speaks for them, or for their
        turn."""
        return len(self._translator.waiting) + self._in_hand.exchanges

    def _of_rows(self, records: Records, summaries: Sequence[tuple[Parser, Hashable]]) -> list[SpanBatch]:
        batches = self._of_summaries(records, summaries) if len(records) else []
        self._in_hand.let_go(len(records))  # their spans are in hand
        return batches

    def _of_summaries(self, records: Records, summaries: Sequence[tuple[Parser, Hashable]]) -> list[SpanBatch]:
        selection = self._selection
        if selection is not None:
            selected = self._attempt(len(records), lambda: selection.of_rows(records))
            if selected is None:
                return []
            records, summaries = selected[0], selected_of(summaries, selected[1])
        return self._translated(records, lambda: self._translator.batch_of_summaries(records, summaries))
