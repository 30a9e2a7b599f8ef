"""Where everything lies on a disc: each layout moves the received files into place and names what is grafted."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from mkiso.config import LayoutName
from mkiso.disc.pdi import pdi
from mkiso.disc.tree import Setting, Tree
from mkiso.disc.viewer import found_viewer
from mkiso.pages.readme import readme_of_malformed
from mkiso.retrieve.instances import Instance

README = "README.TXT"
Layout = Callable[[Sequence[Instance], Setting], Tree]


def legacy(instances: Sequence[Instance], setting: Setting) -> Tree:
    """Every instance in the folder `DICOMDIR`, its file named by its SOP Instance UID.

    README.TXT names those that are not well-formed, where there are any, and the viewer has no file of that name.
    """
    folder = setting.stage / "DICOMDIR"
    folder.mkdir()
    for instance in instances:
        os.rename(instance.path, f"{folder}/{instance.sop_instance_uid}")
    grafts = [("DICOMDIR", folder)]
    malformed = [(f"DICOMDIR/{one.sop_instance_uid}", one.sop_instance_uid) for one in instances if one.malformed]
    if malformed and README not in map(str.upper, found_viewer(setting.config.media).entries):
        file = setting.stage / README
        file.write_bytes(readme_of_malformed(setting.config.media.language, malformed))
        grafts.append((README, file))
    return Tree(grafts)


LAYOUTS: dict[LayoutName, Layout] = {"legacy": legacy, "pdi": pdi}
