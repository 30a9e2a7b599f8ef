"""Log lines: an event and its fields, readable in a terminal, JSON where MKISO_LOG=json."""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from datetime import UTC, datetime


class EventFormatter(logging.Formatter):
    def __init__(self, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        fields = {key: value for key, value in getattr(record, "fields", {}).items() if value is not None}
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        trace = self.formatException(record.exc_info) if record.exc_info else ""
        if self._as_json:
            event = {"time": time, "level": record.levelname, "event": record.getMessage(), **fields}
            return json.dumps(event | ({"trace": trace} if trace else {}), default=str)
        told = " ".join(f"{key}={value}" for key, value in fields.items())
        return f"{time} {record.levelname:<7} {record.getMessage()} {told}".rstrip() + (trace and f"\n{trace}")


def set_up(level: int = logging.INFO) -> None:
    """Log to standard error from here on; pydicom's remarks quote values, a patient's name among them."""
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module="pydicom")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(EventFormatter(os.environ.get("MKISO_LOG") == "json"))
    logging.basicConfig(level=level, handlers=[handler], force=True)


def log_once(log: logging.Logger, event: str, error: BaseException, **fields: object) -> None:
    """Log an error with its trace, unless it was logged so where it passed before."""
    if not vars(error).get("logged"):
        vars(error)["logged"] = True
        log.error(event, exc_info=error, extra={"fields": fields})
