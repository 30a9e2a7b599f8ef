"""The archive's failures as DCMTK's programs tell them, turned into the errors that a caller sees."""

from __future__ import annotations

from mkiso.dcmtk.association import LIMIT_REACHED, Failure, Peer, association_failure, busy, words
from mkiso.errors import MkisoError, PacsRejected, PacsUnreachable


def association_error(pacs: Peer, stderr: str) -> MkisoError | None:
    """The error of an association with the archive that did not come about; None where it did."""
    failure = association_failure(stderr)
    if failure is None:
        return None
    if failure is Failure.UNREACHABLE:
        return PacsUnreachable(f"No association with the PACS {pacs}: {words(stderr)}. Check that it runs, and pacs.*.")
    if failure is Failure.BUSY:
        return PacsRejected(f"The PACS {pacs} is busy: {busy(pacs, stderr)}.")
    refused = f"The PACS {pacs} refused the association: {words(stderr)}."
    if LIMIT_REACHED.search(stderr):
        return PacsRejected(f"{refused} It has as many associations as it takes. Try again later.")
    return PacsRejected(f"{refused} Check the AE titles: it must know {pacs.calling} and answer to {pacs.called}.")


def silent_error(pacs: Peer) -> PacsUnreachable:
    """The error of a PACS that was not heard of before a program's time was over."""
    return PacsUnreachable(f"The PACS {pacs} did not answer in {pacs.connect_timeout:g} s. Check that it runs.")
