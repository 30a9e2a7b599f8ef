from collections.abc import Iterator
from pathlib import Path
from string import Formatter
from typing import get_args

import pytest

import mkiso.browse
from mkiso.browse.shown import Why
from mkiso.config import Media
from mkiso.texts import texts

LANGUAGES: tuple[str, ...] = get_args(Media.model_fields["language"].annotation)
TEMPLATES = "".join(file.read_text() for file in (Path(mkiso.browse.__file__).parent / "templates").glob("*.htm"))

KINDS = ("image", "frame", "ecg", "report", "document", "file", "other")
TITLES = (Path(mkiso.browse.__file__).parent / "words.py").read_text()


def said(language: str) -> Iterator[tuple[str, str]]:
    for section, keys in texts(language).items():
        yield from ((f"{section}.{key}", text) for key, text in keys.items())


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


def test_there_is_a_file_for_each_language_that_may_be_configured() -> None:
    assert set(LANGUAGES) == {"en", "id"}
    assert all(texts(language) for language in LANGUAGES)


def test_an_unknown_language_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        texts("xx")


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_says_the_same_with_the_same_placeholders(language: str) -> None:
    reference = {key: placeholders(text) for key, text in said("en")}
    assert {key: placeholders(text) for key, text in said(language)} == reference


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_text_is_empty_or_markup(language: str) -> None:
    assert [key for key, text in said(language) if not text.strip() or text != text.strip() or "<" in text] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_stands_in_the_readme_is_ascii(language: str) -> None:
    assert [key for key, text in texts(language)["readme"].items() if not text.isascii()] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_reason_has_a_text(language: str) -> None:
    assert set(texts(language)["why"]) == set(Why)


def test_the_pages_use_every_text() -> None:
    counted = {f"{number}_{kind}" for number in ("one", "many") for kind in KINDS if f'"{kind}"' in TITLES}
    unused = [key for key in texts("en")["pages"] if f"t.{key}" not in TEMPLATES and f'"{key}"' not in TITLES]
    assert set(unused) == counted


def test_the_languages_differ() -> None:
    indonesian = dict(said("id"))
    same = {key for key, text in said("en") if indonesian[key] == text}
    assert same <= {
        *("pages.day", "web.instance_uid", "web.series_uid"),
        *("months.4", "months.9", "months.11", "modalities.CT", "modalities.PT", "modalities.EEG", "modalities.EMG"),
        *("body_parts.SINUS", "report.Completion Flag", "report.FINAL", "report.Diagnosis"),
    }
