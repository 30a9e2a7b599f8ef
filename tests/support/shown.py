"""What the pages of a disc show, by hand: patients, studies and series as data, their pictures as real JPEGs."""

from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydicom import Dataset

from mkiso.browse.shown import (
    WEB,
    About,
    Document,
    Nothing,
    Other,
    Picture,
    ShownPatient,
    ShownReport,
    ShownSeries,
    ShownStudy,
    Viewer,
    Why,
)
from tests.support import datasets
from tests.support.tools import run

MADE_AT = datetime(2024, 3, 1, 10, 15, tzinfo=UTC)
BODY = "<h2>Radiology Report</h2><p><b>Finding</b></p><p>A synthetic finding.</p>"
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "javascript:alert(1)",
    "</title></table></main><svg onload=alert(1)>",
    "{{ 7 * 7 }}{% raw %}",
    "control\x00\x07\x1b[31m\x85\ufffe",
    "surrogate\ud800\udcff",
    "]]><!-- &amp; &lt; --> <?php ?>",
)


def about(**changes: Any) -> About:
    values: dict[str, Any] = {
        "institution": "Example Hospital",
        "contact": "Example Street 1, +00 000 000",
        "language": "en",
        "made_at": MADE_AT,
        "file_set_id": "CD20240301",
        "volume_id": "CD20240301",
    }
    return About(**{**values, **changes})


def picture(place: int, /, **changes: Any) -> Picture:
    return Picture(**{"file": f"p{place:07}.jpg", "width": 512, "height": 512, "number": str(place), **changes})


def series(place: int, /, *items: Any, **changes: Any) -> ShownSeries:
    values: dict[str, Any] = {
        "number": str(place),
        "modality": "CT",
        "description": f"Thorax {place}",
        "instances": 200,
    }
    return ShownSeries(**{**values, "items": items, **changes})


def patient(*all_series: ShownSeries, **changes: Any) -> ShownPatient:
    study = ShownStudy("20240301", "CT of the thorax", "CT.000200", all_series)
    values: dict[str, Any] = {
        "name": "JOHN DOE",
        "patient_id": "PAT001",
        "birth_date": "19620304",
        "sex": "M",
        "studies": (study,),
    }
    return ShownPatient(**{**values, **changes})


def everything() -> ShownPatient:
    """A patient with something of each kind: two series of images, a loop, a report, a document, what is not shown."""
    loop = (picture(20 + frame, number="1", frame=frame, frames=5) for frame in (1, 3, 5))
    return patient(
        series(1, *map(picture, range(1, 7)), description="Topogram"),
        series(2, *map(picture, range(7, 19)), Nothing("13", "CT Image Storage", Why.SYNTAX)),
        series(3, *loop, modality="US", description="Loop", instances=1),
        series(4, ShownReport("1", "Radiology Report", BODY), modality="SR", description="Reports", instances=1),
        series(5, Document("d0000001.pdf", "1", "Letter"), modality="DOC", description="", instances=1),
        series(6, *(Nothing(str(n), "ECG Storage", Why.NO_PIXELS) for n in (1, 2)), modality="ECG", instances=2),
    )


def hostile(text: str) -> ShownPatient:
    """A patient of whom every text is this one."""
    items = (
        picture(1, number=text),
        picture(2, number=text, frame=2, frames=3, window=text, other=Other("q0000002.jpg", 9, 9, text)),
        Nothing(text, text, Why.BROKEN),
        ShownReport(text, text, BODY),
        Document("d0000001.pdf", text, text),
    )
    study = ShownStudy(text, text, text, (ShownSeries(text, text, text, 5, items),))
    return ShownPatient(text, text, text, text, (study,))


def hostile_about(text: str, **changes: Any) -> About:
    """What is told beside, of hostile texts; a file's name holds any byte, and so any surrogate that stands for one."""
    name = text.replace("\ud800", "")
    return about(institution=text, contact=text, viewer=Viewer((name,), name), **changes)


def put_files(patients: tuple[ShownPatient, ...], stage: Path, content: bytes = b"\xff\xd8jpeg") -> None:
    """Put a file below the stage for each picture and document."""
    (stage / WEB).mkdir(parents=True, exist_ok=True)
    for patient_ in patients:
        for study in patient_.studies:
            for one in study.series:
                for item in one.items:
                    if isinstance(item, Picture | Document):
                        (stage / WEB / item.file).write_bytes(content)
                    if isinstance(item, Picture) and item.other:
                        (stage / WEB / item.other.file).write_bytes(content)


@cache
def ct_jpeg() -> bytes:
    """A CT image as DCMTK shows it."""
    common = datasets.study(datasets.Patient("PAT001", "DOE^JOHN"), "CT.000200")
    return jpeg(datasets.ct(common, 1, 1), "+Wm")


def jpeg(image: Dataset, *window: str) -> bytes:
    with TemporaryDirectory() as directory:
        source, target = Path(directory) / "image", Path(directory) / "image.jpg"
        image.save_as(source, enforce_file_format=True)
        finished = run(("/usr/bin/dcmj2pnm", "-q", "+oj", "+Jq", "85", *window, source, target))
        assert finished.returncode == 0, finished.stderr
        return target.read_bytes()
