"""The counter's look-up page in Chromium: scan, search, tick, and start what is ticked."""

from pathlib import Path

from tests.support.datasets import Patient
from tests.support.studies import Study, ct_study, series_study

KUSUMA = Patient("PAT501", "KUSUMA^INDAH", "19700102", "F")
HANA = Patient("PAT502", "YAMADA^HANA=山田^花=やまだ^はな", "19840229", "F", "ISO_IR 192")
MULLER = Patient("PAT503", "MÜLLER^JÖRG", "19550607", "M", "ISO_IR 192")
OTHER = Patient("PAT504", "MULLER^EVA", "19550607", "F")


def more_studies(held: Path) -> list[Study]:
    """Five studies of one patient, the first two of several series; and one number that two patients have."""
    first = [series_study(held, KUSUMA, f"CT5.{number}", series=3, count=2) for number in (1, 2)]
    rest = [ct_study(held, KUSUMA, f"CT5.{number}", count=2, side=64) for number in (3, 4, 5)]
    names = [ct_study(held, who, f"NAME.{who.patient_id}", count=1, side=64) for who in (HANA, MULLER, OTHER)]
    shared = [ct_study(held, who, "SHARED.9", number=n, count=2, side=64) for n, who in ((1, KUSUMA), (2, HANA))]
    return [*first, *rest, *names, *shared]
