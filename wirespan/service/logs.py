"""The agent's log: one line an event on stderr, for eyes or for machines.

Code logs through the standard library, with what varies in ``extra``; the message itself is constant text. The
console format is that of the Collector's console encoder: time, level, message and ``key=value``, between tabs.
``json`` is one object a line with the Collector's keys ``ts``, ``level``, ``msg``.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime
from typing import Any

from .settings import LogsSettings

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}
_LEVEL_NAMES = {number: name for name, number in _LEVELS.items()} | {logging.CRITICAL: "fatal"}
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def log_to_stderr(settings: LogsSettings) -> None:
    """Send all logs to stderr from now on; those of libraries from ``warn``."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if settings.encoding == "json" else ConsoleFormatter())
    logging.basicConfig(handlers=[handler], level=max(logging.WARNING, _LEVELS[settings.level]), force=True)
    logging.getLogger("wirespan").setLevel(_LEVELS[settings.level])


def fields(record: logging.LogRecord) -> dict[str, Any]:
    """What the caller gave as ``extra``."""
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


class ConsoleFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        pairs = " ".join(f"{key}={_console_value(value)}" for key, value in fields(record).items())
        columns = [_time(record), _level(record), record.getMessage(), pairs]
        line = "\t".join(column for column in columns if column)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {"level": _level(record), "ts": _time(record), "logger": record.name}
        entry |= {"msg": record.getMessage(), **fields(record)}
        if record.exc_info:
            entry["stacktrace"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False, default=str)


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")


def _level(record: logging.LogRecord) -> str:
    return _LEVEL_NAMES.get(record.levelno, record.levelname.lower())


def _console_value(value: Any) -> str:
    """As it is where that is clear, else as JSON: a value with blanks would look like several."""
    if isinstance(value, str) and value and not any(character in value for character in ' \t\n"='):
        return value
    return json.dumps(value, ensure_ascii=False, default=str)
