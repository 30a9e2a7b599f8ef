"""What the caller is told of a retrieval that failed: what happened, and what to do."""

from __future__ import annotations

from collections.abc import Collection, Sequence, Set
from typing import Any

from mkiso.config import Retrieve
from mkiso.dcmtk.association import Peer
from mkiso.dcmtk.movescu import Ending, MoveResult
from mkiso.errors import Incomplete, MkisoError, NoDicomData, PacsRejected, PacsTimeout
from mkiso.retrieve.inbox import Inbox
from mkiso.retrieve.studies import Study

NAMED = 10


def cut(study: Study, unlisted: Set[str], uncounted: int, missing: int, failed: int) -> Incomplete:
    """The archive sent, or counted, more than it lists."""
    listed, title = len(study.instances), study.title
    if unlisted:
        what = f"and sent {len(unlisted)} more that it does not list: {_named(unlisted)}"
        hides = " Where it hides rejected images on purpose, retrieve.unlisted: leave_out leaves them out."
    else:
        what, hides = f"and counted {listed + uncounted} when it sent them", ""
    return Incomplete(
        f"The PACS lists {listed} instances for {title}, {what}. Its list is cut: have the limit on the answers"
        " to one C-FIND raised or taken away in the PACS; mkiso check --accession looks at its lists. If new images"
        f" come in now, try again.{hides}",
        accession=study.accession_number,
        expected=listed + (0 if unlisted else uncounted),
        received=listed - missing + len(unlisted),
        failed=failed,
    )


def incomplete(study: Study, missing: Sequence[str], unlisted: Set[str], ended: MoveResult, inbox: Inbox) -> MkisoError:
    """Instances of the list are missing: PacsRejected, NoDicomData or Incomplete."""
    expected, accession, title = len(study.instances), study.accession_number, study.title
    what = f"{len(missing)} of {expected} instances for {title} are missing: {_named(missing)}."
    what = f"{what} {inbox.damage()}".rstrip()
    if ended.ending is Ending.FAILURE:
        alone = " Where it moves whole studies alone, take the whole study." if study.series_uid else ""
        return PacsRejected(f"{ended.explanation}{alone} {what}")
    numbers: dict[str, Any] = {"accession": accession, "expected": expected, "received": expected - len(missing)}
    why = f" The PACS said: {ended.explanation}." if ended.explanation else ""
    if len(missing) == expected and not inbox.damaged and not unlisted:
        return NoDicomData(
            f"The PACS lists {expected} instances for {title}, and sent none: {_named(missing)}.{why}"
            " Check that it may send to this host, and try again.",
            **numbers,
        )
    others = f" It sent {len(unlisted)} that it does not list: {_named(unlisted)}." if unlisted else ""
    return Incomplete(
        f"{what}{others}{why} Try again; if it stays so, check these instances in the PACS.",
        **numbers,
        failed=ended.failed,
    )


def silent(pacs: Peer, retrieve: Retrieve) -> PacsTimeout:
    return late(pacs, f"no instance came for {retrieve.stall_timeout:g} s (retrieve.stall_timeout)")


def late(pacs: Peer, what: str) -> PacsTimeout:
    return PacsTimeout(f"The PACS {pacs} was too slow: {what}. Try again, or raise the limit.")


def _named(uids: Collection[str]) -> str:
    """The first few of these UIDs, and how many more there are."""
    more = f" and {len(uids) - NAMED} more" if len(uids) > NAMED else ""
    return ", ".join(sorted(uids)[:NAMED]) + more
