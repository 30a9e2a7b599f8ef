"""What an archive takes that takes everything."""

from copy import copy

from pydicom.uid import AllTransferSyntaxes
from pynetdicom import AE, AllStoragePresentationContexts
from pynetdicom.presentation import PresentationContext


def take_anything(entity: AE) -> None:
    """Every storage class in every transfer syntax, whose names are not copied for each association."""
    PresentationContext.__deepcopy__ = _copied  # type: ignore[attr-defined]
    for context in AllStoragePresentationContexts:
        entity.add_supported_context(context.abstract_syntax, AllTransferSyntaxes)


def _copied(context: PresentationContext, _memo: object) -> PresentationContext:
    made = copy(context)
    made._transfer_syntax = list(context._transfer_syntax)
    return made
