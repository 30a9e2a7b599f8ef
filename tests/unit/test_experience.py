"""What a disc is likely to weigh, learnt from what jobs handed out."""

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from mkiso.config import Media
from mkiso.disc.product import require_likely_size
from mkiso.errors import DiscTooLarge
from mkiso.ledger.experience import ENOUGH, Kind, Sizes
from mkiso.ledger.ledger import Ledger
from mkiso.ledger.schema import now

CT, SR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.88.67"


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(f"sqlite:///{tmp_path}/jobs.db", lambda: "W", set)
    yield opened
    opened.close()


def handed_out(ledger: Ledger, *sizes: int, modality: str = "CT", sop_class_uid: str = CT, **end: Any) -> str:
    """A job that handed out instances of these sizes in bytes, and ended; its id."""
    job_id = str(uuid.uuid4())
    ledger.open_job(job_id, "iso", ("A",), requester="x")
    uids = dict.fromkeys(("series_uid", "study_uid", "transfer_syntax"), "1.2")
    kind = {"modality": modality, "sop_class_uid": sop_class_uid, "outcome": "on disc"}
    rows = ({**uids, **kind, "sop_instance_uid": f"1.{number}", "bytes": size} for number, size in enumerate(sizes))
    ledger.hand_out(job_id, list(rows))
    ledger.update(job_id, **{"state": "done", "finished_at": now()} | end)
    return job_id


def test_what_is_done_is_learnt_by_modality_and_by_sop_class(ledger: Ledger) -> None:
    assert ledger.sizes().likely({"CT": 1}) is None
    handed_out(ledger, 400, 600)
    handed_out(ledger, 10, modality="SR", sop_class_uid=SR)
    handed_out(ledger, 1000, modality="CT", sop_class_uid="1.2.840.10008.5.1.4.1.1.7")
    sizes = ledger.sizes()
    assert sizes.likely({CT: 10, SR: 2}) == 5020
    assert sizes.likely({"CT": 3, "SR": 1}) == 2010
    assert sizes.likely({"CT": 3, "MR": 0}) == 2000
    assert sizes.likely({"CT": 3, "MR": 1}) is None
    assert sizes.likely({}) == 0


@pytest.mark.parametrize(
    "end", [{"state": "failed"}, {"state": "cancelled"}, {"state": "mastering", "finished_at": None}]
)
def test_what_is_not_done_is_not_learnt(end: dict[str, Any], ledger: Ledger) -> None:
    handed_out(ledger, 400, **end)
    assert ledger.sizes().likely({"CT": 1}) is None


def test_instances_without_a_modality_are_nobodys_experience(ledger: Ledger) -> None:
    handed_out(ledger, 400, modality="")
    assert ledger.sizes().likely({CT: 1}) is None
    assert ledger.sizes().likely({"": 1}) is None


def test_an_end_that_is_written_twice_is_learnt_once(ledger: Ledger) -> None:
    job_id = handed_out(ledger, 400)
    ledger.update(job_id, state="done", finished_at=now())
    handed_out(ledger, 100, 100, 100)
    assert ledger.sizes().likely({"CT": 4}) == 700


def test_jobs_that_end_at_once_are_all_learnt(ledger: Ledger) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda size: handed_out(ledger, size), range(100, 140)))
    assert ledger.sizes().likely({"CT": 40}) == sum(range(100, 140))
    squares = sa.text("SELECT instances, squares FROM experience")
    found = ledger._database.do(lambda connection: connection.execute(squares).all())
    assert found == [(40, float(sum(size**2 for size in range(100, 140))))]


def kind(*sizes: int) -> Kind:
    return Kind(len(sizes), sum(sizes), float(sum(size**2 for size in sizes)))


ALIKE, FEW, DIFFERENT = kind(*[500] * ENOUGH), kind(*[500] * (ENOUGH - 1)), kind(*[8, 30] * ENOUGH)


@pytest.mark.parametrize(
    ("known", "least"),
    [({"CT": ALIKE}, 5000), ({"CT": FEW}, 0), ({"CT": DIFFERENT}, 0), ({"MR": ALIKE}, 0), ({}, 0)],
)
def test_the_least_that_they_weigh_is_told_where_many_alike_are_known(known: dict[str, Kind], least: int) -> None:
    assert Sizes(known).least({"CT": 10}) == least


def test_a_disc_that_would_hardly_fit_is_refused_with_its_likely_size_and_what_to_do() -> None:
    sizes = Sizes({"CT": ALIKE, "US": DIFFERENT})
    require_likely_size(sizes, {"CT": 10, "US": 1000}, Media(max_size=5000))
    require_likely_size(sizes, {"CT": 10**9}, Media())
    with pytest.raises(
        DiscTooLarge, match=r"about 5519 bytes.*nothing was retrieved.*Tick fewer.*or ask for a ZIP"
    ) as told:
        require_likely_size(sizes, {"CT": 11, "US": 1}, Media(max_size=5000))
    assert told.value.fields == {"size": 5519, "limit": 5000}
    with pytest.raises(DiscTooLarge, match="about 5500 bytes"):
        require_likely_size(sizes, {"CT": 11, "MR": 1}, Media(max_size=5000))
