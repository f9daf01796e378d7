"""W3C Trace Context in requests: whose trace an exchange belongs to.

An exchange whose request has a ``traceparent`` joins that trace. The client's span is a child of the header's parent,
unless the header says that this was not recorded: then it is a root of the same trace, and so is a server span that no
client span of ours precedes. Whether a span is kept is still decided by our own trace id, at both ends alike. As the
foreign one does not show that, the span's tracestate has our randomness too: ``ot=th:…;rv:…``
(https://opentelemetry.io/docs/specs/otel/trace/tracestate-probability-sampling/).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag

import numpy as np
import numpy.typing as npt

from ..pipeline.spans import TextColumn, UInt64Array
from .sampling import Sampling

_RANDOMNESS_DIGITS = 14


class Context(IntFlag):
    """What a request says of traces: enum context_flag of trace_context.h."""

    FOUND = 1
    SAMPLED = 2
    INVALID = 4
    CUT = 8
    OTLP_TRACES = 16
    OTLP_OTHER = 32


@dataclass(frozen=True, slots=True)
class TraceContexts:
    """Of n requests. flags: (n,), of :class:`Context`. trace_ids, (n, 2), and parents, (n,): only where it was found.
    flagged, invalid, cut: how many have any flag, or this one."""

    flags: npt.NDArray[np.uint8]
    trace_ids: UInt64Array
    parents: UInt64Array
    flagged: int
    invalid: int
    cut: int

    def found(self) -> npt.NDArray[np.bool_]:
        """(n,): which requests have one."""
        return (self.flags & Context.FOUND).astype(np.bool_)

    def recorded_parents(self) -> UInt64Array:
        """(n,): the parent of each, 0 where there is none or it was not recorded."""
        return np.where(self.flags & Context.SAMPLED, self.parents, np.uint64(0))


def trace_states(
    sampling: Sampling, levels: npt.NDArray[np.uint8], own: UInt64Array, foreign: npt.NDArray[np.bool_]
) -> TextColumn:
    """The tracestate of the spans that are ``foreign``, (n,). levels: by which each was kept. own: (n,), the low halves of the
    trace ids by which it was decided that they are kept."""
    begins, lengths = np.zeros(len(foreign), np.int64), np.full(len(foreign), -1, np.int64)
    parts: list[npt.NDArray[np.uint8]] = []
    written = 0
    for level in np.unique(levels[foreign]).tolist():
        rows = np.flatnonzero(foreign & (levels == level))
        prefix = f"{sampling.kept_by(level).trace_state};rv:".encode()
        size = len(prefix) + _RANDOMNESS_DIGITS
        texts = np.empty((len(rows), size), np.uint8)
        texts[:, : len(prefix)] = np.frombuffer(prefix, np.uint8)
        digits = np.frombuffer(own[rows].astype(">u8").tobytes().hex().encode(), np.uint8).reshape(-1, 16)
        texts[:, len(prefix) :] = digits[:, -_RANDOMNESS_DIGITS:]
        begins[rows], lengths[rows] = written + size * np.arange(len(rows)), size
        parts.append(texts.reshape(-1))
        written += texts.size
    return TextColumn(np.concatenate(parts) if parts else np.empty(0, np.uint8), begins, lengths)
