"""Ledgers of earlier versions are migrated with every row; a newer one's is refused."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

import mkiso.ledger
from mkiso.errors import ConfigurationError, LedgerUnavailable
from mkiso.ledger import database, schema
from mkiso.ledger.ledger import Ledger
from tests.support.ledgers import execute, layout, make, require_all_rows

STAGES = ["1.1", "1.2", "1.3", "1.4", "1.4-history", "1.5", "1.6", "1.7"]
# What later versions added to a ledger that they found, before there were versions: never `outcome`.
ADDED = (
    "ALTER TABLE jobs ADD COLUMN format VARCHAR(4)",
    "ALTER TABLE jobs ADD COLUMN medium VARCHAR(8)",
    "ALTER TABLE jobs ADD COLUMN not_indexed INTEGER",
    "ALTER TABLE jobs ADD COLUMN host TEXT",
    "ALTER TABLE jobs ADD COLUMN alive_at BIGINT",
    "CREATE INDEX jobs_finished_here ON jobs (finished_at, work_dir, id)",
    "CREATE INDEX jobs_by_state ON jobs (state, created_at, id)",
    "CREATE INDEX jobs_searched ON jobs (created_at, id, state, patient_name, patient_id, requester)",
)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/jobs.db"


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    opened = Ledger(url, lambda: "W", set)
    yield opened
    opened.close()


@pytest.fixture
def new(tmp_path: Path) -> str:
    """A ledger that was made as it is now."""
    url = f"sqlite:///{tmp_path}/new.db"
    made = Ledger(url, lambda: "W", set)
    made.prepare()
    made.close()
    return url


@pytest.mark.parametrize("stage", STAGES)
def test_every_row_of_every_version_is_there_after_the_upgrade(stage: str, ledger: Ledger, url: str, new: str) -> None:
    make(url, f"{stage}.sql")
    require_all_rows(ledger, "on disc" if stage == "1.1" else "warning")
    assert layout(url) == layout(new)


@pytest.mark.parametrize("done", [1, 5, len(ADDED)])
def test_a_ledger_that_has_some_of_it_gets_the_rest(done: int, ledger: Ledger, url: str, new: str) -> None:
    make(url, "1.1.sql")
    execute(url, *ADDED[:done])
    require_all_rows(ledger, "on disc")
    assert layout(url) == layout(new)


def test_the_newest_migration_is_the_version_that_a_new_ledger_gets() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(mkiso.ledger.__path__[0]) / "migrations"))
    assert ScriptDirectory.from_config(config).get_heads() == ["{}.{}".format(*schema.NEWEST)]


def test_a_migration_that_fails_changes_nothing_and_is_tried_again(ledger: Ledger, url: str) -> None:
    make(url, "1.1.sql")
    before = layout(url)
    execute(url, "CREATE TABLE jobs_by_state (id INTEGER)")  # in the way of the index
    with pytest.raises(LedgerUnavailable):
        ledger.prepare()
    execute(url, "DROP TABLE jobs_by_state")
    assert layout(url) == before
    require_all_rows(ledger, "on disc")


def test_a_ledger_of_a_newer_major_version_is_refused_in_words(ledger: Ledger, url: str) -> None:
    ledger.prepare()
    execute(url, "UPDATE ledger_version SET version_num = '2.0'")
    late = Ledger(url, lambda: "W", set)
    with pytest.raises(LedgerUnavailable, match=r"schema 2\.0 of a newer mkiso; this one knows 1\.8\. Install"):
        late.list_jobs()
    for ask in (late.prepare, late.refuse_newer):
        with pytest.raises(ConfigurationError, match=r"schema 2\.0 of a newer mkiso"):
            ask()
    assert ledger.list_jobs() == []  # who is at work goes on
    late.close()


def test_a_ledger_of_a_newer_minor_version_is_used_as_it_is(ledger: Ledger, url: str) -> None:
    make(url, "1.1.sql")
    ledger.prepare()
    execute(
        url,
        "UPDATE ledger_version SET version_num = '1.10'",
        "ALTER TABLE jobs ADD COLUMN later TEXT",
        "CREATE TABLE later (id INTEGER)",
    )
    older = Ledger(url, lambda: "W", set)
    older.refuse_newer()
    require_all_rows(older, "on disc")
    with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
        assert connection.execute("SELECT version_num FROM ledger_version").fetchall() == [("1.10",)]
    connection.close()
    older.close()


def test_looking_for_a_newer_version_changes_nothing(ledger: Ledger, url: str) -> None:
    make(url, "1.1.sql")
    before = layout(url)
    ledger.refuse_newer()
    assert layout(url) == before


def test_a_migration_takes_as_long_as_it_takes(ledger: Ledger, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make(url, "1.1.sql")
    asked, migrate = [], schema._migrate

    def slow(connection: object) -> None:
        """Longer than anybody waits: until somebody has been told so."""
        with pytest.raises(LedgerUnavailable, match="is brought up to date at this moment") as told:
            ledger.list_jobs()
        asked.append(told)
        migrate(connection)  # type: ignore[arg-type]

    monkeypatch.setattr(database, "LIMIT", 0.2)
    monkeypatch.setattr(schema, "_migrate", slow)
    ledger.prepare()
    assert len(asked) == 1
    monkeypatch.undo()
    require_all_rows(ledger, "on disc")
