"""What lies where on a disc of the layout `pdi`."""

from __future__ import annotations

from mkiso.disc import dicomdir, shown, stage

DICOMDIR, README, INDEX, PHONE = dicomdir.NAME, "README.TXT", "INDEX.HTM", "PHONE.HTM"
IMAGES, OTHER, WEB = stage.IMAGES, stage.OTHER, shown.WEB.upper()
ROOT_FILES = (DICOMDIR, README, INDEX, PHONE)
FOLDERS = (IMAGES, OTHER, WEB)
MOVED = "RR_MOVED"  # the folder that genisoimage makes for what lies too deep; its content is seen where it was


def is_ours(name: str) -> bool:
    """Whether a file is one of the layout's, and not of the viewer's."""
    root, slash, _ = name.upper().partition("/")
    return root in FOLDERS if slash else root in ROOT_FILES
