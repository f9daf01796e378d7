"""RESP2 and RESP3, the wire format of Redis: https://redis.io/docs/latest/develop/reference/protocol-spec/.

Every element begins with a header line: a type byte, a number or a short text, CRLF. Bulks are followed by that many
bytes and CRLF, aggregates by that many elements.
"""

from __future__ import annotations

from enum import IntEnum


class Type(IntEnum):
    """First byte of a header."""

    SIMPLE_STRING = ord("+")
    SIMPLE_ERROR = ord("-")
    INTEGER = ord(":")
    NULL = ord("_")
    BOOLEAN = ord("#")
    DOUBLE = ord(",")
    BIG_NUMBER = ord("(")
    BULK_STRING = ord("$")
    BULK_ERROR = ord("!")
    VERBATIM_STRING = ord("=")
    CHUNK = ord(";")
    ARRAY = ord("*")
    SET = ord("~")
    PUSH = ord(">")
    MAP = ord("%")
    ATTRIBUTE = ord("|")
    END = ord(".")


TYPES = bytes(Type)

#: what :func:`number_of` says of ``$-1``
NULL_LENGTH = -1
#: and of what is no number
INVALID = -2
#: digits of the largest length (``proto-max-bulk-len`` can be raised to 2**63, but nobody does)
DIGITS = 12
#: a header that is not a line of text is shorter than this
HEADER_LIMIT = 32

#: the headers that nearly all messages consist of; looking one up takes 40 % of the time of parsing it
_NUMBERS = {b"%c%d" % (kind, n): n for kind in (Type.BULK_STRING, Type.ARRAY) for n in range(-1, 1024)}


def number_of(header: bytes) -> int:
    """The number of ``$3``, ``*3`` and the like."""
    number = _NUMBERS.get(header)
    if number is not None:
        return number
    digits = header[1:]
    if digits.isdigit() and len(digits) <= DIGITS:
        return int(digits)
    return NULL_LENGTH if digits == b"-1" else INVALID
