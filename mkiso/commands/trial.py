"""`mkiso check --accession A`: a disc of one series is made step by step, and handed to nobody."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

from mkiso.cancellation import Cancellation
from mkiso.checks import Check, checked, readable
from mkiso.clock import Stopwatch
from mkiso.commands.options import requester
from mkiso.config import Config
from mkiso.disc.product import medium
from mkiso.installation import Installation
from mkiso.job import Order
from mkiso.names import display_name
from mkiso.places import Wrong
from mkiso.retrieve.instances import Instance
from mkiso.retrieve.studies import Study
from mkiso.trial import Trial
from mkiso.workspace import PREFIX


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
