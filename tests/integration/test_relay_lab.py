"""The relay lab, a short one: nothing is lost and nothing sent twice at once while workers and services are killed."""

from pathlib import Path

import pytest

from tests.relay_lab import Lab


@pytest.mark.parametrize("ledger", ["sqlite", "mariadb"])
def test_no_relay_is_lost_or_sent_twice_at_once_while_everything_is_killed(ledger: str, tmp_path: Path) -> None:
    with Lab(tmp_path, ledger, relays=8, seed=7) as lab:
        lab.queue()
        lab.disturb(kills=4, suspended=1)
        assert lab.wait(120) == []
        assert [*lab.faults()] == []
