"""A disc as an answer: its first bytes are there, and what fails behind them breaks the connection."""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Callable, Iterator

from mkiso.errors import Cancelled
from mkiso.job import Disc
from mkiso.log import log_once
from mkiso.web.connection import break_connection

log = logging.getLogger("mkiso.web")


class DiscStream:
    """Raises what goes wrong before there is a first byte to send; it has a status of its own.

    `ended` is called when the connection is done with the disc: later than the job, whose last
    bytes may wait for their reader.
    """

    def __init__(self, disc: Disc, client: socket.socket | None, ended: Callable[[], None]) -> None:
        self._disc, self._client, self._ended = disc, client, ended
        self._chunks = iter(disc)
        try:
            self._first = next(self._chunks)
        except BaseException:
            disc.close()
            raise

    def __iter__(self) -> Iterator[bytes]:
        yield self._first
        try:
            for chunk in self._chunks:  # noqa: UP028  (`yield from` would close them when this is thrown away)
                yield chunk
        except Exception as error:  # the boundary: no server can tell it any more
            if not isinstance(error, Cancelled):
                log_once(log, "a disc broke off", error)
            if self._client is not None:
                break_connection(self._client)
            raise BrokenPipeError(errno.EPIPE, "the disc broke off") from error

    def close(self) -> None:
        try:
            self._disc.close()
        finally:
            self._ended()
