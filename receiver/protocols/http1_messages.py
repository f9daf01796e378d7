"""The heads of HTTP/1.x messages (RFC 9110, RFC 9112): start lines and targets.

Of a request target only the path is kept, without what may carry credentials: query, fragment, user info, path
parameters (``;jsessionid=…``). It is kept as bytes as they were sent; :func:`url_path` makes text of it.
"""

from __future__ import annotations

import re
from typing import TypeAlias

METHODS = {
    name.encode(): name
    for name in ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY")
}
#: stands for a method that is not registered, which may be anything a client wrote
OTHER = "_OTHER"

#: method (None: no request line was seen), path (None: there is none that can be told), whether the path was cut,
#: version
RequestSummary: TypeAlias = tuple[str | None, bytes | None, bool, str | None]
#: the same and the status of the answer
Summary: TypeAlias = tuple[str | None, bytes | None, bool, str | None, int | None]

_VERSIONS = {b"HTTP/1.1": "1.1", b"HTTP/1.0": "1.0"}
#: those that answer a request: an interim one (1xx, save 101) does not (RFC 9110, 15.2)
_FINAL_STATUSES: dict[bytes, int] = {b"%d" % status: status for status in (101, *range(200, 1000))}

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}"
REQUEST_LINE = re.compile(_TOKEN + rb" [^ \r\n]+ HTTP/1\.[01]\r?\n")
STATUS_LINE = re.compile(rb"HTTP/1\.[01] [1-9]\d\d[ \r\n]")
#: nearly every request line: one match takes half the time of taking it apart
_PLAIN_LINE = re.compile(rb"([A-Z]+) (/[^ ?#;\r\n]*)(?:\?[^ \r\n]*)? (HTTP/1\.[01])\r\n")
#: a request line that begins as REQUEST_LINE does and ends with what was captured, or in its version
_CUT_LINE = re.compile(
    rb"(?:" + b"|".join(METHODS) + rb") (?:[/*]|[Hh][Tt][Tt][Pp][Ss]?://|[\w.-]+:\d)[^ \r\n]*"
    rb"(?: (?:H|HT|HTT|HTTP|HTTP/|HTTP/1|HTTP/1\.|HTTP/1\.[01]\r?)?)?\Z"
)
#: what a status line that is cut may consist of
STATUS_LINE_START = b"HTTP/1."

_BODY = re.compile(rb"\n(?:(content-length)|transfer-encoding)[ \t]*:[ \t]*([^\r\n]*)", re.IGNORECASE)
_NEXT_REQUEST = re.compile(rb"(?:\r?\n)*" + _TOKEN + rb"(?: |\Z)")
#: digits of the longest body
_DIGITS = 18

_PARAMETERS = re.compile(rb";[^/]*")
_AUTHORITY = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*")


def is_cut_request_line(head: bytes) -> bool:
    """Whether a head without a line end begins as a request of a registered method does."""
    return _CUT_LINE.match(head) is not None


def summary_of(request: bytes, response: bytes) -> Summary:
    """What is emitted of an exchange whose first bytes these are; either may be cut, missing or something else."""
    line = _PLAIN_LINE.match(request)
    status = _FINAL_STATUSES.get(response[9:12])
    if line is None or status is None or response[:7] != STATUS_LINE_START:
        method, path, cut, version = request_summary(request)
        return method, path, cut, version or _VERSIONS.get(response[:8]), _status_of(response)
    method_word, path, version_word = line.groups()
    return METHODS.get(method_word, OTHER), path, False, _VERSIONS[version_word], status


def request_summary(head: bytes) -> RequestSummary:
    """The same of a request alone."""
    parts = head.split(b" ", 2)
    if len(parts) < 3 or b"\n" in parts[1]:
        return _cut_request(head, parts)
    method, target, rest = parts
    version = _VERSIONS.get(rest[:8])
    if version is None and not STATUS_LINE_START.startswith(rest[:7]):
        return None, None, False, None
    return METHODS.get(method, OTHER), _path_of(target), False, version


def _cut_request(head: bytes, parts: list[bytes]) -> RequestSummary:
    """The target is cut, unless a query tells that the path is complete. Of a cut path the whole segments are kept:
    half a segment is nothing that routes or redaction rules further on could know."""
    method = METHODS.get(parts[0])
    if method is None or len(parts) != 2 or b"\n" in head:
        return None, None, False, None
    path = _path_of(parts[1])
    if path is None or b"?" in parts[1]:
        return method, path, False, None
    return method, path[: path.rfind(b"/") + 1], True, None


def _path_of(target: bytes) -> bytes | None:
    """The path of a target in origin or absolute form, without what may carry credentials; None for the authority and
    the asterisk form (RFC 9112, 3.2)."""
    if target[:1] != b"/":
        authority = _AUTHORITY.match(target)
        if authority is None:
            return None
        target = target[authority.end() :]
    path = target.partition(b"?")[0]
    if b"#" in path:
        path = path.partition(b"#")[0]
    if b";" in path:
        path = _PARAMETERS.sub(b"", path)
    return path or b"/"


def holds_another_request(head: bytes) -> bool:
    """Whether a request that is whole is followed by the beginning of another one. A chunked body is not looked at;
    behind CONNECT another protocol follows."""
    end = head.find(b"\r\n\r\n") + 4
    if end < 4 or end >= len(head) or head.startswith(b"CONNECT "):
        return False
    for is_length, value in _BODY.findall(head, 0, end):
        if not is_length or not value.isdigit() or len(value) > _DIGITS:
            return False
        end += int(value)
    return end < len(head) and _NEXT_REQUEST.match(head, end) is not None


def _status_of(head: bytes) -> int | None:
    """The first final status in this head."""
    while head.startswith(STATUS_LINE_START):
        status = _FINAL_STATUSES.get(head[9:12])
        if status is not None:
            return status
        head = head.partition(b"\r\n\r\n")[2]
    return None


def url_path(path: bytes) -> str:
    """Text of a path. Escapes stay; what is not UTF-8 or not printable becomes U+FFFD."""
    text = path.decode("utf-8", "replace")
    return text if text.isprintable() else "".join(c if c.isprintable() else "\ufffd" for c in text)
