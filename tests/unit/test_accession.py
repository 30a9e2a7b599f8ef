from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mkiso.accession import parse_list, parse_one, parse_uids, pasted_list, without_surroundings
from mkiso.errors import BadRequest, EmptyAccession, InvalidAccession, MissingAccession, TooManyAccessions

FORBIDDEN = '*?\\,"='
likely = st.text(st.sampled_from("AZaz09 .-_/'&<>%;\t\n\x00\x7fé" + FORBIDDEN), max_size=70)


def is_good(accession: str) -> bool:
    """The contract's section 2, written down once more."""
    return (
        1 <= len(accession) <= 64
        and all(0x20 <= ord(character) <= 0x7E for character in accession)
        and not set(accession) & set(FORBIDDEN)
        and accession == accession.strip(" ")
    )


@given(st.text() | likely)
def test_what_is_accepted_is_good_and_what_is_good_is_accepted(text: str) -> None:
    trimmed = text.strip(" ")
    try:
        assert parse_one(text) == trimmed
        assert is_good(trimmed)
    except BadRequest:
        assert not is_good(trimmed)


@given(st.lists(likely, max_size=6).map(",".join))
def test_a_list_that_is_accepted_holds_good_numbers_each_once_in_their_order(text: str) -> None:
    try:
        accessions = parse_list(text, 5)
    except BadRequest:
        return
    parts = [part.strip(" ") for part in text.split(",")]
    assert all(map(is_good, accessions))
    assert accessions == tuple(sorted(set(parts), key=parts.index))
    assert len(accessions) <= 5


@pytest.mark.parametrize("text", [None, "", "  "])
def test_an_absent_number_is_missing(text: str | None) -> None:
    with pytest.raises(MissingAccession) as raised:
        parse_one(text)
    assert raised.value.error == "missing accession_number"


@pytest.mark.parametrize("parameter", ["accession_number", "accession_numbers"])
def test_an_absent_list_is_missing_under_the_name_of_its_parameter(parameter: str) -> None:
    with pytest.raises(MissingAccession) as raised:
        parse_list(" ", 5, parameter)
    assert raised.value.error == f"missing {parameter}"


@pytest.mark.parametrize("text", [*FORBIDDEN, "A,B", "A\tB", "A\n", "\x7f", "MÜLLER", "A" * 65])
def test_a_number_that_a_query_would_not_take_literally_is_invalid(text: str) -> None:
    with pytest.raises(InvalidAccession):
        parse_one(text)


@pytest.mark.parametrize("text", ["A,,B", "A,", ",A", ",", "A, ,B"])
def test_a_list_with_an_empty_part_is_refused(text: str) -> None:
    with pytest.raises(EmptyAccession):
        parse_list(text, 5)


def test_one_bad_number_makes_the_list_invalid() -> None:
    with pytest.raises(InvalidAccession):
        parse_list("MR.001,CT*", 5)


def test_repeats_do_not_count_against_the_limit() -> None:
    assert parse_list(" B, A ,B", 2) == ("B", "A")


def test_a_list_above_the_limit_is_refused() -> None:
    with pytest.raises(TooManyAccessions):
        parse_list("A,B,C", 2)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("A,B*C,D", "B*C is"),
        (f"A,{'B' * 65}", "has 65 characters"),
        ("A,M\x1b[2JÜ", r"M\x1b[2JÜ is"),
        ("A," + "Ü" * 999, "Ü" * 64),
    ],
)
def test_a_bad_entry_of_a_list_is_named_harmlessly_and_cut(text: str, named: str) -> None:
    with pytest.raises(InvalidAccession) as raised:
        parse_list(text, 5)
    assert named in raised.value.detail
    assert raised.value.detail.isprintable()
    assert len(raised.value.detail) < 200


def test_how_many_are_too_many_is_told_with_both_numbers() -> None:
    with pytest.raises(TooManyAccessions, match="3 accession numbers; at most 2"):
        pasted_list("A;B;C", 2)


@pytest.mark.parametrize(
    "text", ["A,B C.1", "A; B;C.1", "A\tB\r\nC.1\n", "A.\nB.\nC.1.", ";A,,B;;C.1,", "A.;B. C.1 .", "A\xa0B\u200bC.1"]
)
def test_a_list_is_taken_as_people_paste_it(text: str) -> None:
    assert pasted_list(text, 3) == ("A", "B", "C.1")


@pytest.mark.parametrize("text", ["A,B.", " ;A,B; ", ",A,B,", ".A,B.;", "A,B"])
def test_what_surrounds_a_list_goes(text: str) -> None:
    assert parse_list(without_surroundings(text), 3) == ("A", "B")


@pytest.mark.parametrize("text", ["A,,B", ",", ";", "A,.,B"])
def test_what_is_within_a_list_or_all_of_it_stays(text: str) -> None:
    assert without_surroundings(text) == text


@pytest.mark.parametrize("text", ["", " \n", ";,;", " . "])
def test_a_pasted_list_of_nothing_has_no_number(text: str) -> None:
    with pytest.raises(MissingAccession):
        pasted_list(text, 3)


@given(st.text() | likely)
def test_a_pasted_list_holds_good_numbers_whatever_is_pasted(text: str) -> None:
    with suppress(BadRequest):
        assert all(map(is_good, pasted_list(text, 5)))


@pytest.mark.parametrize(
    ("text", "uids"), [(None, ()), (" ", ()), ("1.2", ("1.2",)), (" 1.3, 1.2 ,1.3", ("1.3", "1.2"))]
)
def test_a_list_of_uids_has_each_once_in_their_order(text: str | None, uids: tuple[str, ...]) -> None:
    assert parse_uids(text, "study_uids", 2) == uids


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("1.2,", "one of them is empty"),
        ("1.2,1..3", "1..3 has a full stop"),
        ("1.2*", "1.2* has '*' in it"),
        ("1.2\n", "has"),
        ("1.2\\1.3", "in it"),
        ("1" * 65, "has 65 characters"),
        ("1.1,1.2,1.3", "has 3 UIDs; at most 2"),
        ("٣", "has '\\u0663' in it"),
    ],
)
def test_what_is_no_list_of_uids_is_refused_by_the_name_of_its_parameter(text: str, told: str) -> None:
    with pytest.raises(BadRequest) as raised:
        parse_uids(text, "study_uids", 2)
    assert told in raised.value.detail
    assert raised.value.detail.startswith("study_uids ")
