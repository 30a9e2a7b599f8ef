"""Log lines: an event and its fields, readable in a terminal, JSON where MKISO_LOG=json."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

LONGEST = 2000  # characters of a value; journald would split lines above 48 KiB
log = logging.getLogger("mkiso")


class EventFormatter(logging.Formatter):
    """One line for each event, whatever characters its values have; in a terminal a trace follows, indented."""

    def __init__(self, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        given = getattr(record, "fields", {}).items()
        fields = {key: _cut(value) for key, value in given if value is not None}
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        name = _cut(record.getMessage())
        trace = self.formatException(record.exc_info) if record.exc_info else ""
        if self._as_json:
            event = {"time": time, "level": record.levelname, "event": name, **fields}
            return json.dumps(event | ({"trace": trace} if trace else {}), default=str)
        words = " ".join(f"{key}={_as_word(value)}" for key, value in fields.items())
        line = f"{time} {record.levelname:<7} {printable(name)} {words}".rstrip()
        return "\n".join((line, *(f"  {printable(one)}" for one in trace.splitlines())))


def set_up(level: int = logging.INFO) -> None:
    """Log to standard error from here on; pydicom's remarks quote values, a patient's name among them."""
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module="pydicom")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(EventFormatter(os.environ.get("MKISO_LOG") == "json"))
    logging.basicConfig(level=level, handlers=[handler], force=True)


def log_the_uncaught() -> None:
    """Make events of what Python itself would write to standard error: uncaught exceptions, and warnings."""
    sys.excepthook = lambda _kind, error, _trace: _log_error("an error was not caught", error)
    sys.unraisablehook = lambda raised: _log_error("an error was not caught", raised.exc_value)
    threading.excepthook = _log_thread
    warnings.showwarning = _log_warning


def log_once(log: logging.Logger, event: str, error: BaseException, **fields: object) -> None:
    """Log an error with its trace, unless it was logged so where it passed before."""
    if not vars(error).get("logged"):
        vars(error)["logged"] = True
        log.error(event, exc_info=error, extra={"fields": fields})


def _log_error(event: str, error: BaseException | None, **fields: object) -> None:
    log.error(event, exc_info=error, extra={"fields": fields})


def _log_thread(raised: threading.ExceptHookArgs) -> None:
    if raised.exc_type is not SystemExit:
        _log_error("a thread failed", raised.exc_value, thread=raised.thread and raised.thread.name)


def _log_warning(*arguments: Any, **_named: Any) -> None:
    """Log where a library warns, and not of what: it may quote a value."""
    _, category, file, line, *_ = arguments
    log.warning("a library warns", extra={"fields": {"category": category.__name__, "at": f"{file}:{line}"}})


def _cut(value: Any) -> Any:
    return f"{value[:LONGEST]}…" if isinstance(value, str) and len(value) > LONGEST else value


def _as_word(value: object) -> str:
    """A value as a terminal shows it: in quotes where its end would not be seen, its characters all visible."""
    if isinstance(value, Mapping):
        value = ",".join(f"{key}:{one}" for key, one in value.items())
    elif isinstance(value, list | tuple):
        value = ",".join(map(str, value))
    text = printable(str(value))
    if " " not in text and '"' not in text:
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def printable(text: str) -> str:
    """A text of which nothing commands a terminal: what comes from strangers is shown so."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
