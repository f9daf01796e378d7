"""What is in bytes that are said to be a request of OTLP, without decoding them: wirespan/native/otlp_scan.c."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ..native.library import library
from .component import Signal
from .encoded import EncodedBatch
from .protobuf import MalformedMessage

#: ``enum message`` of otlp_scan.c
_MESSAGES: Final[Mapping[Signal, int]] = {"traces": 0, "metrics": 1, "logs": 2}


def scanned(signal: Signal, data: bytes, sender: str = "") -> EncodedBatch:
    """The request as a batch, its items counted; raises MalformedMessage for what a decoder would refuse.

    Every field is checked, so that what passes can be joined with other requests: a single string that is not UTF-8 would
    have a backend refuse all of them.
    """
    items = library().otlp_items(_MESSAGES[signal], data, len(data))
    if items < 0:
        raise MalformedMessage(f"not a request of {signal}")
    return EncodedBatch(signal, data, items, sender)
