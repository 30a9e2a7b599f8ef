"""An index where everything has a later release: an empty wheel of version 9999 of each package that a lock names.

Runs with Python alone: `python3 -m tests.support.newer DIRECTORY` makes it before anything is installed.
"""

import re
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LATER = "9999"
LOCKED = re.compile(r"^([\w.-]+)==(\S+)(?: ; (.+?))? \\$", re.M)


def normal(name: str) -> str:
    """The name as lock files have it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(lock: str) -> dict[str, str]:
    """The packages that a lock file names for Linux and CPython, and their versions."""
    entries = LOCKED.findall((ROOT / lock).read_text())
    assert entries, f"{lock} names nothing"
    return {name: version for name, version, marker in entries if "win32" not in marker}


def later_releases(directory: Path) -> Path:
    """Writes the wheels; the directory is given to pip as PIP_FIND_LINKS, beside the registry."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in ("pip", *locked("requirements-dev.lock"), *locked("requirements-build.lock")):
        stem = f"{name.replace('-', '_')}-{LATER}"
        described = {
            "METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {LATER}\n",
            "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            "RECORD": "",
        }
        with zipfile.ZipFile(directory / f"{stem}-py3-none-any.whl", "w") as wheel:
            for file, text in described.items():
                wheel.writestr(f"{stem}.dist-info/{file}", text)
    return directory


if __name__ == "__main__":
    print(later_releases(Path(sys.argv[1])))
