"""What a setting may be: a size, an AE title, a host, a secret; each says what it expected where it is none.

An error never shows a value, which may be a secret.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from mkiso.addresses import host_name, is_address

HIGHEST_PORT = 65535
UNITS = {"": 1, "B": 1}
UNITS |= {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


def _size(value: object) -> object:
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", value)
    if match is None or match[2].upper() not in UNITS:
        raise ValueError("a size in bytes, such as 700MB or 4.7GB")
    return int(float(match[1]) * UNITS[match[2].upper()])


def _ae_title(value: str) -> str:
    if value != value.strip() or "\\" in value or not value.isascii() or not value.isprintable():
        raise ValueError("an AE title: 1 to 16 ASCII characters, no backslash, no spaces around it (PS3.5 6.2)")
    return value


def _host(value: str) -> str:
    """No option of a program, which a name with a hyphen before it would be."""
    if not re.fullmatch(r"[A-Za-z0-9_:][A-Za-z0-9._:-]*", value):
        raise ValueError("a host name or an address")
    return value


def _served_name(value: str) -> str:
    name = host_name(value)
    if not (is_address(name) or re.fullmatch(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?", name)):
        raise ValueError("a name or an address as in a browser's address bar, without scheme, port and wildcard")
    return name


def _secret(value: object) -> object:
    if isinstance(value, str) and value.startswith("file:"):
        try:
            return Path(value.removeprefix("file:")).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"a readable file of text for the secret: {error}") from None
    return value


def _bind(value: str) -> str:
    tcp = re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):(\d{1,5})", value)
    if not (value.startswith("unix:/") or (tcp and 1 <= int(tcp[2]) <= HIGHEST_PORT)):
        raise ValueError("HOST:PORT or unix:/PATH")
    return value


def _volume_id(value: str) -> str:
    if len(value.encode()) > 32:  # noqa: PLR2004  (ECMA-119 8.4.7)
        raise ValueError("at most 32 bytes")
    return value


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError("an absolute path")
    return path


Seconds = Annotated[float, Field(gt=0, le=10**6)]
Port = Annotated[int, Field(ge=1, le=HIGHEST_PORT)]
Size = Annotated[int, BeforeValidator(_size), Field(ge=0)]
AETitle = Annotated[str, Field(min_length=1, max_length=16), AfterValidator(_ae_title)]
Secret = Annotated[SecretStr, BeforeValidator(_secret)]
Host = Annotated[str, AfterValidator(_host)]
ServedName = Annotated[str, AfterValidator(_served_name)]
AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
Bind = Annotated[str, AfterValidator(_bind)]
VolumeId = Annotated[str, Field(min_length=1), AfterValidator(_volume_id)]
