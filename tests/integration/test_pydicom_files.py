"""All of pydicom's test files, sent by an archive as they are: each is on a disc, or refused by name and with a why."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mkiso import errors
from mkiso.config import parse
from mkiso.installation import Installation
from mkiso.job import Order, make_disc
from mkiso.waiting import Cancellation
from tests.support.ports import free_ports
from tests.support.service import settings
from tests.support.strange import StrangeFile, running_strange, strange_files

AT_ONCE = 3
ON_DISC = "on a disc"


def became(file: StrangeFile, number: int, port: int, receiver: tuple[str, int], directory: Path) -> str:
    """What became of it: on a disc as it is, or refused with the words that are told here."""
    configuration = settings(directory, port, dict([receiver]), media={"pictures": 0})
    configuration["pacs"]["ae_title"] = f"FILE{number}"
    installation = Installation(parse(configuration))
    try:
        iso = b"".join(make_disc(installation, Order((file.accession,), "test", "pdi"), Cancellation()))
        return ON_DISC if file.data_set in iso else "a disc without it"
    except errors.MkisoError as error:
        is_told = file.sop_instance_uid in error.detail and not isinstance(error, errors.Internal)
        return f"{'refused by name' if is_told else 'failed'}: {error.code}: {error.detail}"
    except Exception as error:
        return f"internal: {error!r}"
    finally:
        installation.ledger.close()


@pytest.mark.filterwarnings("ignore")
def test_each_is_on_a_disc_or_refused_by_name(tmp_path: Path) -> None:
    files = strange_files()
    port, *receivers = free_ports(1 + AT_ONCE)
    outcomes: dict[str, str] = {}

    def run(place: int) -> None:
        directory, receiver = tmp_path / str(place), (f"RECEIVER{place}", receivers[place])
        directory.mkdir()
        for number in range(place, len(files), AT_ONCE):
            outcomes[str(files[number].path)] = became(files[number], number, port, receiver, directory)

    destinations = {f"RECEIVER{place}": to for place, to in enumerate(receivers)}
    with running_strange(port, destinations), ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(run, range(AT_ONCE)))
    assert len(outcomes) == len(files) > 170
    bad = {file: told for file, told in outcomes.items() if not told.startswith((ON_DISC, "refused by name: "))}
    assert bad == {}
    assert sum(told == ON_DISC for told in outcomes.values()) > 140
