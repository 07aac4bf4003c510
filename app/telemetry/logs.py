"""Structured logs: one line an event, to standard error; JSON in containers, readable on a terminal.

Nothing that came from outside is written but as the value of a field, which both renderers escape. Passwords, tokens and
query strings (which hold signed upload states) are never given to the log.
"""

import logging
import sys
from typing import Any, Literal

import structlog

Log = structlog.typing.FilteringBoundLogger
Level = Literal["debug", "info", "warning", "error"]


def open_log(level: Level, form: Literal["auto", "json", "console"]) -> Log:
    """The log of this process; the standard library's loggers (uvicorn, asyncio) go the same way from `warning` up."""
    pretty = form == "console" or (form == "auto" and sys.stderr.isatty())
    threshold = logging.getLevelNamesMapping()[level.upper()]
    processors: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    if pretty:
        processors += [_printable, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    else:
        processors.append(structlog.processors.JSONRenderer())
    log: Log = structlog.wrap_logger(
        structlog.PrintLogger(sys.stderr),
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers[:] = [_Forward(log)]
    root.setLevel(max(threshold, logging.WARNING))
    return log


def _printable(_logger: Any, _method: str, fields: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """What may reach a terminal: the renderer leaves escape sequences as they are. Tracebacks keep their lines."""
    for name, value in fields.items():
        if isinstance(value, str):
            fields[name] = "".join(
                letter
                if letter.isprintable() or (letter == "\n" and name == "exception")
                else letter.encode("unicode_escape").decode()
                for letter in value
            )
    return fields


class _Forward(logging.Handler):
    """Hands records of the standard library to our log."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        exc = record.exc_info[1] if record.exc_info else None
        self._log.log(record.levelno, record.getMessage(), logger=record.name, error=repr(exc) if exc else None)
