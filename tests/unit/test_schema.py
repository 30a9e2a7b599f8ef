"""A ledger of an earlier version is migrated with every row; one of no version that is known is refused."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.config import Config
from alembic.script import ScriptDirectory

import mkiso.ledger
from mkiso.errors import ConfigurationError, LedgerUnavailable
from mkiso.ledger import database, history, schema
from mkiso.ledger.ledger import Ledger
from tests.support.ledgers import OLDER, execute, layout, make, require_all_rows


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


@pytest.mark.parametrize("piece", [1, 500])
def test_every_row_of_the_first_version_is_there_after_the_upgrade(
    piece: int, ledger: Ledger, url: str, new: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(url, "1.8.sql")
    monkeypatch.setattr(history, "BATCH", piece)
    require_all_rows(ledger)
    assert layout(url) == layout(new)


def test_a_ledger_whose_making_was_cut_is_made_whole(ledger: Ledger, url: str, new: str) -> None:
    execute(url, "CREATE TABLE ledger_version (version_num VARCHAR(32) NOT NULL, PRIMARY KEY (version_num))")
    ledger.prepare()
    assert layout(url) == layout(new)


def test_a_ledger_that_another_process_makes_meanwhile_is_no_older_one(
    ledger: Ledger, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    look, others = sa.Inspector.has_table, [Ledger(url, lambda: "W", set)]

    def looked_before_it_was_made(inspector: sa.Inspector, name: str) -> bool:
        found = look(inspector, name)
        while others:
            other = others.pop()
            other.prepare()
            other.close()
        return found

    monkeypatch.setattr(sa.Inspector, "has_table", looked_before_it_was_made)
    ledger.prepare()


def test_the_newest_migration_is_the_version_that_a_new_ledger_gets() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(mkiso.ledger.__path__[0]) / "migrations"))
    scripts = ScriptDirectory.from_config(config)
    assert scripts.get_heads() == ["{}.{}".format(*schema.NEWEST)]
    assert scripts.get_bases() == ["{}.{}".format(*schema.FIRST)]


@pytest.mark.parametrize(("change", "found"), OLDER)
def test_a_ledger_of_an_older_version_is_refused_in_words_and_stays_as_it_is(
    change: str, found: str, ledger: Ledger, url: str
) -> None:
    make(url, "1.8.sql")
    execute(url, change)
    before = layout(url)
    words = rf"{found} of an older mkiso; this one reads none before 1\.8\. Nothing in it was changed\. Move it away"
    with pytest.raises(LedgerUnavailable, match=words):
        ledger.list_jobs()
    for ask in (ledger.prepare, ledger.refuse_other_versions):
        with pytest.raises(ConfigurationError, match=words):
            ask()
    assert layout(url) == before


def test_a_migration_that_fails_changes_nothing_and_is_tried_again(ledger: Ledger, url: str) -> None:
    make(url, "1.8.sql")
    before = layout(url)
    execute(url, "CREATE VIEW totals AS SELECT 1")  # in the way of the table
    with pytest.raises(LedgerUnavailable):
        ledger.prepare()
    execute(url, "DROP VIEW totals")
    assert layout(url) == before
    require_all_rows(ledger)


def test_a_migration_takes_as_long_as_it_takes(ledger: Ledger, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make(url, "1.8.sql")
    asked, migrate = [], schema._migrate

    def slow(*words: Any) -> None:
        """Longer than anybody waits: until somebody has been told so."""
        with pytest.raises(LedgerUnavailable, match="is brought up to date at this moment") as raised:
            ledger.list_jobs()
        asked.append(raised)
        migrate(*words)

    monkeypatch.setattr(database, "LIMIT", 0.2)
    monkeypatch.setattr(schema, "_migrate", slow)
    ledger.prepare()
    assert len(asked) == 1
    monkeypatch.undo()
    require_all_rows(ledger)


def test_a_ledger_of_a_newer_major_version_is_refused_in_words(ledger: Ledger, url: str) -> None:
    ledger.prepare()
    execute(url, "UPDATE ledger_version SET version_num = '2.0'")
    late = Ledger(url, lambda: "W", set)
    with pytest.raises(LedgerUnavailable, match=r"schema 2\.0 of a newer mkiso; this one knows 1\.\d+\. Install"):
        late.list_jobs()
    for ask in (late.prepare, late.refuse_other_versions):
        with pytest.raises(ConfigurationError, match=r"schema 2\.0 of a newer mkiso"):
            ask()
    assert ledger.list_jobs() == []  # who is at work goes on
    late.close()


def test_a_ledger_of_a_newer_minor_version_is_used_as_it_is(ledger: Ledger, url: str) -> None:
    make(url, "1.8.sql")
    ledger.prepare()
    execute(
        url,
        "UPDATE ledger_version SET version_num = '1.99'",
        "ALTER TABLE jobs ADD COLUMN later TEXT",
        "CREATE TABLE later (id INTEGER)",
    )
    older = Ledger(url, lambda: "W", set)
    older.refuse_other_versions()
    require_all_rows(older)
    with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
        assert connection.execute("SELECT version_num FROM ledger_version").fetchall() == [("1.99",)]
    connection.close()
    older.close()


def test_looking_for_another_version_changes_nothing(ledger: Ledger, url: str) -> None:
    make(url, "1.8.sql")
    before = layout(url)
    ledger.refuse_other_versions()
    assert layout(url) == before
