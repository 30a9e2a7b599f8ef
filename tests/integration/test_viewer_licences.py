"""What `make viewer` builds has the licence of each of its parts beside it, and names each library in its decoders."""

import json
import re
from pathlib import Path

from tests.support.tools import ROOT

PARTS, BUILT = ROOT / "build" / "viewer-parts" / "node_modules", ROOT / "build" / "viewer" / "VIEWER"
DECODERS = PARTS / "dcmjs-imaging" / "build" / "dcmjs-native-codecs.wasm"
TERMS = re.compile(r"(licen[cs]e|copying|notice)([.-].*)?", re.I)
OF_LICENCE = {
    "MIT": "Permission is hereby granted, free of charge",
    "Zlib": "The origin of this software must not be misrepresented",
}
# What the decoders' bytes do not name by a path, and a text of it that is in them.
WITHOUT_PATH = {"Brotli": b"BrotliEncoderCreateInstance", "libjpeg": b"Bogus JPEG colorspace"}


def packages() -> list[Path]:
    assert PARTS.is_dir(), "`make viewer` has not been run"
    lock = json.loads((ROOT / "viewer" / "package-lock.json").read_text())["packages"]
    return [PARTS.parent / name for name in lock if name]


def told() -> str:
    return (BUILT / "LICENCES.TXT").read_text()


def test_each_part_has_its_licence_there_word_for_word() -> None:
    for package in packages():
        terms = [one for one in package.iterdir() if TERMS.fullmatch(one.name)]
        assert terms, package.name
        for one in terms:
            assert one.read_text() in told(), one


def test_the_text_of_each_licence_that_a_part_names_is_there() -> None:
    for package in packages():
        named = json.loads((package / "package.json").read_text())["license"]
        for one in re.findall(r"[\w.-]+", re.sub(r"\b(AND|OR)\b", " ", named)):
            assert OF_LICENCE[one] in told(), (package.name, one)


def test_the_libraries_in_the_decoders_are_those_that_the_notices_name_with_their_versions() -> None:
    decoders = DECODERS.read_bytes()
    notices = (ROOT / "viewer" / "NOTICES.TXT").read_text()
    inside = {one.decode().lower() for one in re.findall(rb"/wasm/lib/([\w.-]+)/", decoders)}
    named = re.findall(r"^  ([A-Z]?[A-Za-z]+)(?: (\d[\w.]*\d))?[.,] ", notices, re.M)
    assert {f"{name}-{version}".lower() for name, version in named if version} == inside
    assert {name for name, version in named if not version} == WITHOUT_PATH.keys()
    assert all(text in decoders for text in WITHOUT_PATH.values())
    assert notices in told()
