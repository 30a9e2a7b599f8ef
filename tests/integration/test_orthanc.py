"""Orthanc, an archive by other hands: as the PACS, synchronous and not, and as a destination."""

from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pydicom import dcmread

from mkiso.config import parse
from mkiso.errors import SeveralPatients
from mkiso.installation import Installation
from mkiso.job import Order, make_disc, relay
from mkiso.retrieve.studies import count_patients
from mkiso.waiting import Cancellation
from tests.support.orthanc import AE_TITLE, running_orthanc
from tests.support.ports import free_ports
from tests.support.service import elements, instances_of, instances_on, read_disc, settings
from tests.support.studies import JANE, JOHN, Study, ct_study, mixed_study


def before_orthanc(directory: Path, port: int, receiver: int) -> dict[str, Any]:
    """Orthanc answers only those whose AE title it knows."""
    configuration = settings(directory, port, {"RECEIVER": receiver}, retrieve={"calling_ae_title": "RECEIVER"})
    configuration["pacs"]["ae_title"] = AE_TITLE
    return configuration


@pytest.mark.parametrize("synchronous", [True, False])
def test_a_disc_from_orthanc_is_whole_also_where_it_answers_before_it_sends(synchronous: bool, tmp_path: Path) -> None:
    port, http, receiver = free_ports(3)
    study = mixed_study(tmp_path / "held")
    destinations = {"RECEIVER": receiver}
    with running_orthanc(tmp_path / "pacs", (port, http), destinations, SynchronousCMove=synchronous) as orthanc:
        orthanc.put(study.files)
        installation = Installation(parse(before_orthanc(tmp_path, port, receiver)))
        disc = make_disc(installation, Order(("MIXED.001",), "test"), Cancellation())
        found = instances_on(read_disc(b"".join(disc), tmp_path / "disc"))
        installation.ledger.close()
    assert found == instances_of([study])


@pytest.mark.parametrize("tool", ["storescu", "dcmsend"])
def test_every_kind_of_instance_is_relayed_to_orthanc_unchanged(tool: str, tmp_path: Path) -> None:
    source, source_http, receiver, port, http = free_ports(5)
    study = mixed_study(tmp_path / "held")
    with (
        running_orthanc(tmp_path / "pacs", (source, source_http), {"RECEIVER": receiver}) as pacs,
        running_orthanc(tmp_path / "archive", (port, http), {}) as archive,
    ):
        pacs.put(study.files)
        configuration = before_orthanc(tmp_path, source, receiver)
        peer = {"ae_title": AE_TITLE, "host": "127.0.0.1", "port": port, "tool": tool}
        configuration["destinations"] = {"relay": peer}
        installation = Installation(parse(configuration))
        done = relay(installation, Order(("MIXED.001",), "test"), "relay", Cancellation())
        installation.ledger.close()
        arrived = archive.instances(tmp_path / "arrived")
    assert done.delivery.sent == len(study.files) == len(arrived)
    assert elements(arrived) == elements(study.files)


def in_the_study_of(other: Study, mine: Study) -> None:
    """Another patient's instances come into the study: Orthanc holds it twice."""
    for file in mine.files:
        dataset = dcmread(file)
        dataset.StudyInstanceUID = other.study_uid
        dataset.save_as(file)


@pytest.mark.parametrize("verify", [True, False])
def test_one_study_of_two_patients_is_refused_under_whatever_accession_numbers(verify: bool, tmp_path: Path) -> None:
    port, http, receiver = free_ports(3)
    one, john = (ct_study(tmp_path / "john", JOHN, accession) for accession in ("SAME.1", "JOHN.1"))
    same, another = (ct_study(tmp_path / "jane", JANE, accession, number=2) for accession in ("SAME.1", "OTHER.1"))
    in_the_study_of(one, same)
    in_the_study_of(john, another)
    configuration = before_orthanc(tmp_path, port, receiver)
    configuration["retrieve"]["verify_patient"] = verify
    with running_orthanc(tmp_path / "pacs", (port, http), {"RECEIVER": receiver}) as orthanc:
        orthanc.put([*one.files, *same.files, *john.files, *another.files])
        installation = Installation(parse(configuration))
        for accessions in (("SAME.1",), ("JOHN.1",), ("JOHN.1", "OTHER.1")):
            with pytest.raises(SeveralPatients) as refused:
                make_disc(installation, Order(accessions, "test"), Cancellation())
            assert refused.value.fields == {"patients": 2}
            assert "verify_patient" not in refused.value.detail
        for accessions in (("SAME.1",), ("JOHN.1", "OTHER.1")):
            assert count_patients(installation.studies(accessions, Cancellation(), str(uuid4()))) == 2
        installation.ledger.close()
