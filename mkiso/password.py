"""The password of a protected ZIP: which may be one, four words for one, and where a command reads it.

It is in ASCII: of other letters programs make different bytes (7-Zip for Windows those of the system's code page,
others UTF-8), so that one of them could not open the ZIP.
"""

from __future__ import annotations

import functools
import secrets

from xkcdpass import xkcd_password  # type: ignore[import-untyped]

from mkiso.errors import BadRequest

SHORTEST, LONGEST = 8, 128
WORDS, JOINT = 4, "-"
WORD_LIST = "eff-long"  # EFF's large list: each word is known, and none is the beginning of another
LETTERS_OF_A_WORD = (4, 9)


def require_password(text: str) -> str:
    """A password as it is; raises BadRequest, which does not repeat it, where no ZIP may have it."""
    if not text:
        raise BadRequest("The password is empty. Give one, or ask for a ZIP without.")
    if not (text.isascii() and text.isprintable()):
        raise BadRequest(
            "The password has other characters than letters A to Z, digits, signs and spaces of ASCII. Not every"
            " program could open the ZIP with it: choose another."
        )
    if text != text.strip():
        raise BadRequest("The password begins or ends with a space, which nobody sees on paper. Leave it out.")
    if not SHORTEST <= len(text) <= LONGEST:
        raise BadRequest(f"The password has {len(text)} characters. Take {SHORTEST} to {LONGEST}.")
    return text


def suggested() -> str:
    """Four words that nobody guesses, each one of 7690: 51 bits."""
    return JOINT.join(secrets.choice(_words()) for _ in range(WORDS))


@functools.cache
def _words() -> tuple[str, ...]:
    shortest, longest = LETTERS_OF_A_WORD
    return tuple(xkcd_password.generate_wordlist(WORD_LIST, shortest, longest, valid_chars="[a-z]"))
