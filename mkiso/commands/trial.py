"""A trial: what a disc needs is done for one series of an accession number, and nothing is handed out.

`mkiso check --accession A`: a disc of one series is made step by step, and handed to nobody.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

from mkiso.checks import Check, Wrong, checked, readable
from mkiso.clock import Cancellation, Stopwatch
from mkiso.commands.jobs import requester
from mkiso.config import Config
from mkiso.dcmtk.findscu import Finder
from mkiso.dicom.datasets import display_name
from mkiso.dicom.instances import Instance
from mkiso.disc.product import Product, medium
from mkiso.installation import Installation
from mkiso.job import Job, Order
from mkiso.ledger.record import Unrecorded
from mkiso.retrieve.studies import Study, find_studies, of_one_series, require_one_patient, with_instances
from mkiso.workspace import PREFIX


class Trial(Job):
    """A job's directory and its steps; no row in the ledger, for that tells what left the house.

    Each step raises the MkisoError that a job would end with.
    """

    recorded_by = Unrecorded

    def name(self) -> str | None:
        """The name that the patient source gives; None where the archive's own answer is to be taken."""
        return self._installation.patients.name_of(self._order.accessions[0], self.cancellation.checkpoint)

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


def trial(config: Config, accession: str) -> Iterator[Check]:
    """A check for each step of the trial; what fails keeps none from being told."""
    with ExitStack() as held:
        steps = _Steps(config, accession, held)
        for name in ("begin", "patient_source", "query", "lists", "move", "disc"):
            yield checked(f"trial {name.replace('_', ' ')}", getattr(steps, name))
    yield checked("trial end", steps.end)


class _Steps:
    """What each step found, and what it gives the next."""

    def __init__(self, config: Config, accession: str, held: ExitStack) -> None:
        self._config, self._held = config, held
        self._order = Order((accession,), requester("check"), config.media.layout)
        self._trial: Trial | None = None
        self._studies: list[Study] = []
        self._instances: list[Instance] = []

    def begin(self) -> str:
        self._trial = self._held.enter_context(Trial(Installation(self._config), self._order, Cancellation()))
        return f"accession number {self._order.accessions[0]}"

    def patient_source(self) -> str:
        name = self._begun().name()
        return "the PACS's own answer" if name is None else f"the patient is {display_name(name) or 'without a name'}"

    def query(self) -> str:
        self._studies = self._begun().query()
        series = {one for study in self._studies for one in study.instances.values()}
        instances = sum(len(study.instances) for study in self._studies)
        who = display_name(self._studies[0].patient_name) or "without a name"
        return f"studies: {len(self._studies)}, series: {len(series)}, instances: {instances}, of {who}"

    def lists(self) -> str:
        """An archive that cuts its lists costs each larger study a second look, or its disc."""
        if unlisted := self._begun().unlisted(self._found()):
            raise Wrong(
                f"series by series the PACS lists {unlisted} instances more than at once: its lists are cut. Have the"
                " limit on the answers to one C-FIND raised or taken away in the PACS."
            )
        counted = sum(study.counted or 0 for study in self._studies)
        listed = sum(len(study.instances) for study in self._studies)
        more = f"; the PACS itself counts {counted}, and may hide some" if counted > listed else ""
        return f"at once as many instances as series by series: {listed}{more}"

    def move(self) -> str:
        self._found()
        moving = Stopwatch()
        self._instances = self._begun().move(self._studies)
        return f"the largest series came whole in {moving.seconds():.1f} s, instances: {len(self._instances)}"

    def disc(self) -> str:
        if not self._instances:
            raise Wrong("not tried, for no series came")
        size = self._begun().made(self._instances).size
        fits = f"for a {medium(size)}" if medium(size) else "more than any disc holds"
        return f"{size} bytes ({readable(size)}) with that series and the layout {self._order.layout}, {fits}"

    def end(self) -> str:
        """To be asked when the trial is over."""
        if list(self._config.storage.work_dir.glob(f"{PREFIX}{self._order.job_id}")):
            raise Wrong(f"its directory is left in {self._config.storage.work_dir}. Run mkiso sweep.")
        return "nothing was handed out, nothing is left"

    def _found(self) -> list[Study]:
        if not self._studies:
            raise Wrong("not tried, for the query found nothing")
        return self._studies

    def _begun(self) -> Trial:
        if self._trial is None:
            raise Wrong("not tried, for the trial could not begin")
        return self._trial
