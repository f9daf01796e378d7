"""Processes that trace themselves, so that nothing becomes a span twice.

A process is instrumented if it exports spans by OTLP; then its SDK, and not we, speaks for both sides of what it does.
For its requests it also is if they carry trace contexts that it created: the header names a span which its sender
recorded. The other side of such an exchange stays, as a child of the span that the header names. OTLP exports
themselves are telemetry and left out at both ends.

What a process is shows only after a while, so its first exchanges wait:

* A proxy that knows nothing of traces passes on the header that came in, an SDK puts a span of its own into it. Both are
  told apart by a request that a process served and one that it made with the same header. What it served ends after what
  it made for that, so a process whose requests carry contexts is on trial until that would have shown.
* An SDK exports what it has every five seconds (the specification's default of OTEL_BSP_SCHEDULE_DELAY). A process that
  declares an exporter in its environment, or serves requests that carry contexts, is on trial until its first export.

Traits are an array by process number, so that a batch looks up all of its rows at once. Everything is bounded: processes,
headers remembered, and, by who keeps them, the exchanges that wait.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntFlag
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from ..native.key_table import UNKNOWN, KeyTable
from ..pipeline.spans import UInt64Array
from .process import ImageKey, image_key
from .scopes import Records
from .trace_context import Context, TraceContexts
from .waiting import Patience

Mode = Literal["skip", "both"]
Mask = npt.NDArray[np.bool_]

#: processes of which something is known
PROCESSES_KEPT: Final = 4_096
#: headers of requests remembered, in each of two generations of either side
HEADERS_KEPT: Final = 16_384
#: seconds between two exports of an SDK, and a second for the export to be answered
_EXPORT_INTERVAL: Final = 6.0
#: bounds the wait for what was served to end
_LONGEST_WAIT: Final = 5.0

_PROCESS_NUMBERS: Final = 1 << 22  # PID_MAX_LIMIT of Linux on 64 bits


class Trait(IntFlag):
    """What is known of a process."""

    EXPORTS = 1  # sends spans by OTLP
    RELAYS = 2  # receives OTLP: what it exports is not its own
    CREATES = 4  # its requests carry contexts of its own
    PASSES = 8  # its requests carry the contexts of requests that it serves
    MAY_CREATE = 16  # CREATES or PASSES: on trial
    MAY_EXPORT = 32  # on trial until its first export
    SILENT = 64  # it did not export during its trial


#: a process of whose own requests something is known
_MADE: Final = Trait.EXPORTS | Trait.CREATES | Trait.PASSES | Trait.MAY_CREATE
#: a process that need not be on trial until its first export: who passes on what came in has no SDK
_TRIED: Final = Trait.EXPORTS | Trait.PASSES | Trait.MAY_EXPORT | Trait.SILENT
_OTLP: Final = np.uint8(Context.OTLP_TRACES | Context.OTLP_OTHER)


@dataclass(slots=True)
class _Process:
    image: ImageKey
    traits: int = 0  # of Trait
    #: when a trial is over; of time.monotonic()
    created_at: float = 0.0
    exported_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Sides:
    """n exchanges as one end saw each. own: the low halves of the trace ids that we compute, which both ends share.
    pids: of the processes. observed: whether the other end is observed too."""

    records: Records
    server_side: Mask
    observed: Mask
    pids: npt.NDArray[np.int64]
    own: UInt64Array


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of n exchanges. instrumented: an SDK speaks for this side. telemetry: it is an OTLP export. waits: not to be
    known yet. client_emitted: there is a client span of ours to be the parent of this server span."""

    instrumented: Mask
    telemetry: Mask
    waits: Mask
    client_emitted: Mask


class Instrumentation:
    """Learns which processes trace themselves. Belongs to the drain's thread.

    mode: ``skip``: one side of an exchange is one span, the SDK's if it has one; ``both``: nothing is left out. settle:
    seconds after which a response is complete.
    """

    def __init__(self, mode: Mode, settle: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._mode = mode
        self._clock = clock
        #: seconds that a side may wait for what is known only when another exchange has ended
        self.patience = min(2 * settle + 0.5, _LONGEST_WAIT)
        self._processes: OrderedDict[int, _Process] = OrderedDict()
        self._on_trial: set[int] = set()
        self._learned = False
        self._traits = np.zeros(_PROCESS_NUMBERS, np.uint8)
        self._served, self._made = KeyTable(HEADERS_KEPT), KeyTable(HEADERS_KEPT)

    @property
    def marks(self) -> bool:
        """Whether what is instrumented is marked and not left out."""
        return self._mode == "both"

    def meet(self, image: ImageKey, declares_exporter: bool) -> None:
        """A program image is seen for the first time, or after a while once more."""
        process = self._processes.get(image.tgid)
        if process is not None and _is_older(process.image, image):
            self._forget(image.tgid)
            process = None
        if declares_exporter and (process is None or not process.traits & _TRIED):
            self._learn(image, Trait.MAY_EXPORT)

    def judge(self, sides: Sides, contexts: TraceContexts | None, patience: Patience) -> Verdict | None:
        """What is to become of these; None if none of them has to do with traces."""
        self._end_trials()
        flagged = contexts is not None and contexts.flagged
        if not flagged and not self._processes:
            return None
        flags = contexts.flags if contexts is not None and flagged else np.zeros(len(sides.records), np.uint8)
        sampled: Mask = (flags & Context.SAMPLED).astype(np.bool_)
        if contexts is not None and flagged:
            self._learn_of(sides, contexts, sampled)
        return self._verdict(sides, flags, sampled, patience)

    def _verdict(self, sides: Sides, flags: npt.NDArray[np.uint8], sampled: Mask, patience: Patience) -> Verdict:
        client, nobody = ~sides.server_side, np.zeros(len(flags), np.bool_)
        traits, peers = self._traits.take(sides.pids, mode="wrap"), self._peer_traits(sides)
        made = Trait.CREATES if patience.for_processes else Trait.CREATES | Trait.MAY_CREATE
        instrumented = _exports(traits) | (client & sampled & _has(traits, made))
        if self.marks:
            return Verdict(instrumented, nobody, nobody, np.ones(len(flags), np.bool_))
        telemetry: Mask = (flags & _OTLP).astype(np.bool_)
        instrumented &= ~telemetry
        waits = nobody
        if patience.for_processes:
            waits = _has(traits | peers, Trait.MAY_EXPORT) | (sampled & _has(traits | peers, Trait.MAY_CREATE))
        if patience.for_clients:
            local = sides.observed & (sides.records["connection"]["peer_tgid"] != 0)
            waits = waits | (sides.server_side & local & sampled & ~_has(peers, _MADE))
        passed_on = _has(peers, Trait.PASSES) & ~_exports(peers)
        client_emitted = np.where(sampled, passed_on, ~_exports(peers))
        return Verdict(instrumented, telemetry, waits & ~instrumented & ~telemetry, client_emitted)

    def _peer_traits(self, sides: Sides) -> npt.NDArray[np.uint8]:
        """Of server sides whose client is a process of this machine; otherwise 0."""
        peers = self._traits.take(sides.records["connection"]["peer_tgid"], mode="wrap")
        return np.where(sides.server_side & sides.observed, peers, np.uint8(0))

    # ---- what is learned -------------------------------------------------------------------------------------

    def _learn_of(self, sides: Sides, contexts: TraceContexts, sampled: Mask) -> None:
        flags, server, client = contexts.flags, sides.server_side, ~sides.server_side
        traits = self._traits.take(sides.pids, mode="wrap")
        otlp: Mask = (flags & _OTLP).astype(np.bool_)
        exported: Mask = (flags & Context.OTLP_TRACES).astype(np.bool_)
        for mask, trait in (
            (server & otlp & ~_has(traits, Trait.RELAYS), Trait.RELAYS),
            (client & exported & ~_has(traits, Trait.EXPORTS), Trait.EXPORTS),
            (client & sampled & ~_has(traits, _MADE), Trait.MAY_CREATE),
            (server & sampled & ~_has(traits, _TRIED), Trait.MAY_EXPORT),
        ):
            self._learn_each(sides, mask, trait)
        open_question = sampled & ~_has(traits, Trait.EXPORTS | Trait.PASSES)
        self._learn_each(sides, self._passed_on(sides, contexts, open_question), Trait.PASSES)

    def _passed_on(self, sides: Sides, contexts: TraceContexts, which: Mask) -> Mask:
        """Which of these have a header that their process has met at its other side too, in another exchange."""
        found = np.zeros(len(which), np.bool_)
        for own_side, own_headers, other_headers in (
            (~sides.server_side, self._made, self._served),
            (sides.server_side, self._served, self._made),
        ):
            rows = np.flatnonzero(which & own_side)
            if len(rows):
                keys = _header_keys(contexts, sides.pids, rows)
                exchange = (sides.own[rows] & np.uint64(0x7FFF_FFFF)).astype(np.int64)
                own_headers.add(keys, exchange)
                other = other_headers.find(keys)
                found[rows] = (other != UNKNOWN) & (other != exchange)
        return found

    def _learn_each(self, sides: Sides, mask: Mask, trait: Trait) -> None:
        rows = np.flatnonzero(mask)
        if len(rows):
            _, first = np.unique(sides.pids[rows], return_index=True)
            for row in rows[first].tolist():
                self._learn(image_key(sides.records[row]["process"]), trait)

    def _learn(self, image: ImageKey, trait: Trait) -> None:
        process = self._processes.get(image.tgid)
        if process is not None and _is_older(image, process.image):
            return
        if process is None or _is_older(process.image, image):
            process = self._processes[image.tgid] = _Process(image)
        self._processes.move_to_end(image.tgid)
        if len(self._processes) > PROCESSES_KEPT:
            self._forget(next(iter(self._processes)))
        process.traits |= trait
        if trait is Trait.EXPORTS:
            process.traits &= ~(Trait.MAY_EXPORT | Trait.SILENT)
        elif trait is Trait.PASSES:
            process.traits &= ~(Trait.MAY_CREATE | Trait.CREATES | Trait.MAY_EXPORT)
        elif trait is Trait.MAY_CREATE:
            process.created_at = self._clock() + self.patience
        elif trait is Trait.MAY_EXPORT:
            process.exported_at = self._clock() + self.patience + _EXPORT_INTERVAL
        self._show(process)

    def has_learned(self) -> bool:
        """Whether anything is known now that was not when this was asked last."""
        self._end_trials()
        learned, self._learned = self._learned, False
        return learned

    def _end_trials(self) -> None:
        now = self._clock() if self._on_trial else 0.0
        for number in tuple(self._on_trial):
            process = self._processes[number]
            over = 0
            if process.traits & Trait.MAY_CREATE and now >= process.created_at:
                over |= Trait.MAY_CREATE | Trait.CREATES
            if process.traits & Trait.MAY_EXPORT and now >= process.exported_at:
                over |= Trait.MAY_EXPORT | Trait.SILENT
            if over:
                process.traits ^= over
                self._show(process)

    def _show(self, process: _Process) -> None:
        number = process.image.tgid
        self._learned = True
        self._traits[number % _PROCESS_NUMBERS] = process.traits
        if process.traits & (Trait.MAY_CREATE | Trait.MAY_EXPORT):
            self._on_trial.add(number)
        else:
            self._on_trial.discard(number)

    def _forget(self, number: int) -> None:
        del self._processes[number]
        self._on_trial.discard(number)
        self._traits[number % _PROCESS_NUMBERS] = 0


def _is_older(one: ImageKey, other: ImageKey) -> bool:
    """Whether process ``one`` had this number, or ran this program, before ``other`` did."""
    return (one.start_time, one.exec_id) < (other.start_time, other.exec_id)


def _has(traits: npt.NDArray[np.uint8], wanted: Trait) -> Mask:
    """Any of these."""
    found: Mask = (traits & np.uint8(wanted)) != 0
    return found


def _exports(traits: npt.NDArray[np.uint8]) -> Mask:
    found: Mask = (traits & np.uint8(Trait.EXPORTS | Trait.RELAYS)) == np.uint8(Trait.EXPORTS)
    return found


def _header_keys(contexts: TraceContexts, pids: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]) -> UInt64Array:
    """A number for each header of a process; two that meet would only make one more span."""
    ids = contexts.trace_ids[rows]
    keys = ids[:, 0] * np.uint64(0x9E3779B97F4A7C15) ^ ids[:, 1] * np.uint64(0xC2B2AE3D27D4EB4F)
    keys ^= contexts.parents[rows] * np.uint64(0x165667B19E3779F9)
    mixed: UInt64Array = keys ^ pids[rows].astype(np.uint64) * np.uint64(0x27D4EB2F165667C5)
    return mixed
