from pathlib import Path

from mkiso.browse.contents import patients_of, series_of
from mkiso.browse.shown import ShownPatient, ShownSeries, ShownStudy
from mkiso.dicom.instances import Instance


def instance(patient: str, study: str, series: str, number: int) -> Instance:
    uids = (f"1.{number}", "1.2", series, study, "1.3")
    return Instance(Path("/nonexistent"), *uids, 1, (1, 1), patient_id=patient)


def test_instances_are_grouped_where_the_first_of_each_is() -> None:
    whose = ("A12", "B31", "A12", "A22", "A13", "A12", "B32")
    instances = [instance(*of, number) for number, of in enumerate(whose)]
    assert [[int(one.sop_instance_uid[2:]) for one in series] for series in series_of(instances)] == [
        *([0, 2, 5], [4], [3], [1], [6]),
    ]


def test_headers_that_cannot_be_read_are_empty_texts() -> None:
    nothing = ShownSeries("", "", "", 1, ())
    assert patients_of([([instance(*"A11", 1)], ()), ([instance(*"A21", 2)], ()), ([instance(*"B31", 3)], ())]) == (
        ShownPatient("", "A", "", "", (ShownStudy("", "", "", (nothing,)), ShownStudy("", "", "", (nothing,)))),
        ShownPatient("", "B", "", "", (ShownStudy("", "", "", (nothing,)),)),
    )
