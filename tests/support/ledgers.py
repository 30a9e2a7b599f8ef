"""Ledgers as earlier versions of the program made them, with a row of each kind: `tests/fixtures/ledgers`."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from mkiso.ledger.history import Filters
from mkiso.ledger.ledger import Ledger
from mkiso.ledger.schema import VERSION
from mkiso.ledger.totals import Totals

FILES = Path(__file__).parent.parent / "fixtures" / "ledgers"
FIRST, SECOND = (f"0000000{number}-0000-4000-8000-000000000000" for number in (1, 2))
CREATED = ("2026-01-01T08:00:00.000000Z", "2026-01-02T08:00:00.000000Z")
FINISHED = ("2026-01-01T08:00:09.000000Z", None)
NAME = "ZOË O'NEIL"
ROWS = """INSERT INTO jobs (id, kind, state, accessions, patient_id, patient_name, studies, expected, received, bytes,
    files_sent, files_failed, error, requester, created_at, finished_at, seconds, work_dir, cancel_requested)
    VALUES (:id, 'iso', :state, :accessions, 'P', :name, '["1.2"]', 2, 2, 7, 0, 0, NULL, 'x', :created, :finished,
    '{"queued": 0.5}', 'W', :no)"""
NUMBERS = "INSERT INTO job_accessions (job_id, accession_number) VALUES (:id, :number)"
HANDED = """INSERT INTO instances (job_id, sop_instance_uid, sop_class_uid, series_uid, study_uid, transfer_syntax,
    bytes, outcome) VALUES (:id, :uid, '1.3', '1.4', '1.2', '1.5', 4, 'warning')"""
FORGOTTEN = """INSERT INTO forgotten (work_dir, kind, state, code, jobs, received, bytes, seconds)
    VALUES ('W', 'iso', :state, :code, 3, 6, 21, :seconds)"""
# What makes an older one of the first version that is read, and how that is told.
OLDER = (
    ("UPDATE ledger_version SET version_num = '1.7'", r"has the schema 1\.7"),
    ("DROP TABLE ledger_version", "has a schema without a version"),
)


def execute(url: str, *statements: str) -> None:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()


def make(url: str, file: str) -> None:
    """Tables, and in them two jobs, each with its numbers, the first with what it handed out; some are forgotten."""
    execute(url, *filter(str.strip, (FILES / file).read_text().split(";")))
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        for job_id, state, created, finished in zip(
            (FIRST, SECOND), ("done", "queued"), CREATED, FINISHED, strict=True
        ):
            row = {"id": job_id, "state": state, "created": created, "finished": finished, "name": NAME, "no": False}
            connection.execute(sa.text(ROWS), row | {"accessions": json.dumps(["A", "Ä 1"])})
            connection.execute(sa.text(NUMBERS), [{"id": job_id, "number": number} for number in ("A", "Ä 1")])
        for state, code in (("done", ""), ("failed", "busy")):
            connection.execute(sa.text(FORGOTTEN), {"state": state, "code": code, "seconds": '{"queued": 1.5}'})
        connection.execute(sa.text(HANDED), [{"id": FIRST, "uid": uid} for uid in ("1.2.1", "1.2.2")])
    engine.dispose()


def require_all_rows(ledger: Ledger) -> None:
    """Whatever `make` wrote is told and counted as ever, and the ledger goes on."""
    ended = Counter({("iso", "done", ""): 4, ("iso", "failed", "busy"): 3})
    assert ledger.totals() == Totals(ended, instances=14, handed_out=28, seconds=Counter(queued=3.5))
    first, second = (ledger.job(one) for one in (FIRST, SECOND))
    assert (first["state"], first["patient_name"], first["accessions"]) == ("done", NAME, ["A", "Ä 1"])
    assert (first["received"], first["bytes"], first["seconds"], first["studies"]) == (2, 7, {"queued": 0.5}, ["1.2"])
    assert (first["finished_at"], first["format"], first["not_indexed"]) == (FINISHED[0], None, None)
    assert second["created_at"] == CREATED[1]
    for words in (("Zoe",), ("ZOË", "p"), ("o'neil",)):
        assert [job["id"] for job in ledger.history.all(Filters(patient=words))] == [SECOND, FIRST]
    assert (first["series"], first["encrypted"]) == (None, False)
    for accession in ("A", "Ä 1"):
        assert [job["id"] for job in ledger.list_jobs(accession=accession)] == [SECOND, FIRST]
    handed = ledger.history.instances(FIRST, "", 10)
    assert [(one["sop_instance_uid"], one["bytes"], one["outcome"]) for one in handed] == [
        ("1.2.1", 4, "warning"),
        ("1.2.2", 4, "warning"),
    ]
    ledger.open_job("NEW", "iso", ("a", "A"), requester="x", format="iso", medium="CD", not_indexed=0)
    uids = dict.fromkeys(("sop_instance_uid", "sop_class_uid", "series_uid", "study_uid", "transfer_syntax"), "1")
    ledger.hand_out("NEW", [{**uids, "bytes": 1, "outcome": "on disc"}])
    assert len(ledger.history.instances("NEW", "", 10)) == 1
    ledger.update("NEW", state="done", finished_at=FINISHED[0])
    assert ledger.totals().jobs["iso", "done", ""] == 5


def layout(url: str) -> dict[str, Any]:
    """Every table's columns, keys and indexes, in no order, as the database tells them; and their version.

    But for one that only an older version of the program uses.
    """
    engine = sa.create_engine(url)
    inspector = sa.inspect(engine)
    found: dict[str, Any] = {
        table: {
            "columns": {(one["name"], str(one["type"]), one["nullable"]) for one in inspector.get_columns(table)},
            "key": inspector.get_pk_constraint(table)["constrained_columns"],
            "foreign": sorted(str(one["constrained_columns"]) for one in inspector.get_foreign_keys(table)),
            "indexes": {(one["name"], *one["column_names"]) for one in inspector.get_indexes(table)},
        }
        for table in inspector.get_table_names()
        if table != "forgotten"
    }
    if VERSION.name in found:
        with engine.connect() as connection:
            found["version"] = connection.execute(sa.select(VERSION)).scalars().all()
    engine.dispose()
    return found
