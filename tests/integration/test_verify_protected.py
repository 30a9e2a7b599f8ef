"""`mkiso verify` on ZIPs with a password: sound ones, broken ones, and where the password is not theirs."""

import os
import random
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from mkiso.verify.medium import UnreadableDisc, WrongPassword
from mkiso.verify.verify import verify
from tests.integration.test_verify import disc, sound
from tests.support.pdi import as_directory, as_iso, as_zip
from tests.support.preloaded import MKISO
from tests.support.service import mkiso

__all__ = ("disc", "sound")  # fixtures
PASSWORD = "drowsy-pony-relish-cable"


def failed(file: Path) -> set[str]:
    return {check.name for check in verify(file, PASSWORD) if not check.ok}


def by_7z(disc: Path, *options: str) -> Path:
    """The disc's archive as 7-Zip makes it: some members stored, others deflated."""
    file = disc.parent / "by7z.zip"
    names = [str(one.relative_to(disc)) for one in sorted(disc.iterdir())]
    argv = ("/usr/bin/7z", "a", "-tzip", f"-p{PASSWORD}", *options, file, *names)
    subprocess.run(argv, cwd=disc, check=True, capture_output=True)
    return file


def test_a_protected_zip_passes_every_check(disc: Path) -> None:
    checks = verify(as_zip(disc, PASSWORD), PASSWORD)
    assert [check for check in checks if not check.ok] == []
    assert len(checks) == 29


def test_one_that_somebody_else_encrypted_and_compressed_is_a_disc_too(disc: Path) -> None:
    assert failed(by_7z(disc, "-mem=AES256")) == set()


@pytest.mark.parametrize("option", ["-mem=AES128", "-mem=ZipCrypto"])
def test_weaker_encryption_than_aes_256_is_a_fault(option: str, disc: Path) -> None:
    assert "medium" in failed(by_7z(disc, option))


@pytest.mark.parametrize("password", [None, "drowsy-pony-relish-cables", ""])
def test_without_its_password_no_check_is_made(password: str | None, disc: Path) -> None:
    with pytest.raises(WrongPassword, match="needs a password" if password is None else "does not open"):
        verify(as_zip(disc, PASSWORD), password)


@pytest.mark.parametrize("made", [as_iso, as_zip, as_directory])
def test_what_is_not_protected_is_not_taken_for_it(made: Callable[[Path], Path], disc: Path) -> None:
    with pytest.raises(WrongPassword, match="not protected"):
        verify(made(disc), PASSWORD)


def test_a_member_that_anybody_can_read_is_a_fault(disc: Path) -> None:
    file = as_zip(disc, PASSWORD)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("LETTER.TXT", "x")
    found = {check.name: check.found for check in verify(file, PASSWORD) if not check.ok}
    assert "LETTER.TXT is not encrypted" in found["medium"]


def test_another_byte_of_an_instance_is_found(disc: Path) -> None:
    file = as_zip(disc, PASSWORD)
    data = bytearray(file.read_bytes())
    data[data.index(b"IMAGES/ST000001/SE000001/IM000001") + 1000] ^= 1
    file.write_bytes(data)
    assert "medium" in failed(file)


def is_sound(file: Path) -> bool:
    """Whatever it is: an answer, or a disc that cannot be read."""
    try:
        return not failed(file)
    except UnreadableDisc:
        return False


def test_a_protected_zip_that_is_cut_short_anywhere_fails(disc: Path) -> None:
    file = as_zip(disc, PASSWORD)
    whole = file.stat().st_size
    for end in range(whole - 1, -1, -whole // 20):
        os.truncate(file, end)
        assert not is_sound(file)


def test_a_protected_zip_of_flipped_bytes_is_no_error_of_the_program(disc: Path) -> None:
    file, chance = as_zip(disc, PASSWORD), random.Random(1)
    whole = file.read_bytes()
    directory = whole.index(b"PK\1\2")
    for begin in (0, directory):
        for _ in range(25):
            data = bytearray(whole)
            for _ in range(chance.choice((1, 10, 100))):
                data[chance.randrange(begin, len(whole))] = chance.choice((0, 1, 3, 99, 255))
            file.write_bytes(data)
            is_sound(file)


def command(file: Path, *options: object, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run((MKISO, "verify", file, *map(str, options)), input=given, capture_output=True, check=False)


def test_the_command_reads_the_password_from_a_file(disc: Path, tmp_path: Path) -> None:
    file, secret = as_zip(disc, PASSWORD), tmp_path / "password"
    secret.write_text(f"{PASSWORD}\n")
    done = mkiso("verify", file, "--password-file", secret)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"FAIL" not in done.stdout
    for text, says in {"another-password": "does not open it", "": "does not open it"}.items():
        secret.write_text(text)
        done = mkiso("verify", file, "--password-file", secret)
        assert (done.returncode, done.stdout) == (2, b"")
        assert says in done.stderr.decode()
        assert not text or text not in done.stderr.decode()
    done = mkiso("verify", file)
    assert (done.returncode, done.stdout) == (2, b"")
    assert "--password-file" in done.stderr.decode()
    done = mkiso("verify", file, "--password-file", tmp_path / "none")
    assert (done.returncode, b"No such file" in done.stderr) == (2, True)


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_the_command_reads_the_password_from_standard_input(end: bytes, disc: Path) -> None:
    assert command(as_zip(disc, PASSWORD), "--password-file", "-", given=PASSWORD.encode() + end).returncode == 0
