"""What a host lets a process have (getrlimit(2)). A test that needs more is skipped there, and says so."""

from __future__ import annotations

import resource

import pytest

GB = 1 << 30
BROWSER = 64 * GB  # of addresses: Chromium reserves them at its start, and takes few of them


def require_room_for_a_browser() -> None:
    _require(resource.RLIMIT_AS, BROWSER, "of addresses")


def require_files_of(size: int) -> None:
    """Also of holes: the limit is one of a file's length, in bytes."""
    _require(resource.RLIMIT_FSIZE, size, "in a file")


def _require(kind: int, needed: int, what: str) -> None:
    allowed, _ = resource.getrlimit(kind)
    if allowed != resource.RLIM_INFINITY and allowed < needed:
        pytest.skip(f"this host lets a process have {allowed >> 20:,} MB {what}: the test needs {needed >> 20:,}")
