"""``wirespan print-config``: the configuration as it is in effect, files merged and references replaced, without secrets."""

from __future__ import annotations

import re
from typing import Any, Final

import yaml

from .document import TreePath
from .validation import is_secret

REDACTED: Final = "[REDACTED]"
#: keys whose values are names of headers, and no headers
_NAMES: Final = frozenset({"request_headers", "response_headers"})
_USER_OF_URL: Final = re.compile(r"(?<=://)[^/@\s]+(?=@)")
_QUERY_OF_URL: Final = re.compile(r"(?<=[?&])([^=&\s]+=)[^&\s]+")


def printed(tree: Any) -> str:
    """YAML."""
    return yaml.safe_dump(_redacted(tree, ()), sort_keys=False, allow_unicode=True, default_flow_style=False)


def _redacted(value: Any, path: TreePath) -> Any:
    if isinstance(value, dict):
        return {key: _redacted(nested, (*path, key)) for key, nested in value.items()}
    if isinstance(value, list):
        return [_redacted(nested, (*path, index)) for index, nested in enumerate(value)]
    if value is not None and is_secret(path) and not _NAMES.intersection(map(str, path)):
        return REDACTED
    if isinstance(value, str) and "://" in value:
        return _QUERY_OF_URL.sub(rf"\1{REDACTED}", _USER_OF_URL.sub(REDACTED, value))
    return value
