"""A trial: what a disc needs is done for one series of an accession number, and nothing is handed out."""

from __future__ import annotations

from mkiso.dcmtk.findscu import Finder
from mkiso.disc.product import Product
from mkiso.job import Job
from mkiso.ledger.record import Unrecorded
from mkiso.retrieve.instances import Instance
from mkiso.retrieve.studies import Study, find_studies, of_one_series, require_one_patient, with_instances


class Trial(Job):
    """A job's directory and its steps; no row in the ledger, for that tells what left the house.

    Each step raises the MkisoError that a job would end with.
    """

    recorded_by = Unrecorded

    def name(self) -> str | None:
        """The name that the patient source gives; None where the archive's own answer is to be taken."""
        return self._installation.patients.name_of(self._order.accessions[0], self.cancellation.check)

    def query(self) -> list[Study]:
        """Every study of the accession number with its instances: of one patient, where a disc must be."""
        finder = self._installation.finder(self._workspace, self.cancellation)
        studies = find_studies(finder, self._order.accessions)
        if not self._config.patients.allow_mixed:
            require_one_patient(studies)
        return [with_instances(finder, study) for study in studies]

    def unlisted(self, studies: list[Study]) -> int:
        """How many instances the archive lists series by series, and not where it is asked for a study at once."""
        finder = self._installation.finder(self._workspace, self.cancellation)
        by_series = [with_instances(finder, study, by_series=True) for study in studies]
        return sum(len(one.instances.keys() - finder.instances(one.study_uid).keys()) for one in by_series)

    def move(self, studies: list[Study]) -> list[Instance]:
        """The largest series of the first study that has any, retrieved and proven: where lists are cut, it shows."""
        holding = [study for study in studies if study.instances] or studies
        return self.retrieve(holding[:1])

    def made(self, instances: list[Instance]) -> Product:
        """The disc of these instances: its size, its first bytes, which go nowhere."""
        return self.master(self.decompress(instances))

    def _wanted(self, finder: Finder, study: Study, by_series: bool = False) -> Study:
        return of_one_series(with_instances(finder, study, by_series), study.series_uid)
