"""What a host lets a process have (getrlimit(2)). A test that needs more is skipped there, and says so."""

from __future__ import annotations

import math
import resource

import pytest

MB, GB = 1 << 20, 1 << 30
BROWSER = 64 * GB  # of addresses: Chromium reserves them at its start, and takes few of them


def has_room_for_a_browser() -> bool:
    return _allowed(resource.RLIMIT_AS) >= BROWSER


def require_room_for_a_browser() -> None:
    _require(resource.RLIMIT_AS, BROWSER, "of addresses")


def require_files_of(size: int) -> None:
    """Also of holes: the limit is one of a file's length, in bytes."""
    _require(resource.RLIMIT_FSIZE, size, "in a file")


def _require(kind: int, needed: int, what: str) -> None:
    if (allowed := _allowed(kind)) < needed:
        pytest.skip(f"this host lets a process have {allowed / MB:,.0f} MB {what}: the test needs {needed / MB:,.0f}")


def _allowed(kind: int) -> float:
    allowed, _ = resource.getrlimit(kind)
    return math.inf if allowed == resource.RLIM_INFINITY else allowed
