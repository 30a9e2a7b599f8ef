"""Two hosts that share a ledger, nginx in front of both; one loses its power while requests run, and returns.

That takes network namespaces. `make bench` has more of it (benchmarks/hosts.py).
"""

from pathlib import Path

import pytest

from tests.support import outages
from tests.support.hosts import why_not
from tests.support.mixed import mixture
from tests.support.two_hosts import running_hospital

REQUESTS = 48
# As docs/hosts.md tells, but sooner.
KEEPALIVE = {"tcp_keepalive_time": 2, "tcp_keepalive_intvl": 1, "tcp_keepalive_probes": 2}

pytestmark = pytest.mark.skipif(bool(problem := why_not()), reason=problem or "")


def test_every_answer_is_right_while_a_host_loses_its_power_and_returns(tmp_path: Path) -> None:
    studies = outages.studies_for_outages(tmp_path / "studies")
    with running_hospital(tmp_path, studies, keepalive=KEEPALIVE) as hospital:
        asks = mixture(REQUESTS, outages.PATIENTS, outages.LARGE)
        trial = outages.run(hospital, asks, "power lost, back soon")
        assert trial.wrong() == []
        assert len(trial.answers) >= REQUESTS
        assert set(trial.served()) == {"first", "second"}
        assert outages.left_behind(hospital) == []
