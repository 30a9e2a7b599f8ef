"""Where everything lies on a disc: each layout moves the received files into place and names what is grafted."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from mkiso.config import LayoutName
from mkiso.disc.pdi import pdi
from mkiso.disc.tree import Setting, Tree
from mkiso.retrieve.instances import Instance

Layout = Callable[[Sequence[Instance], Setting], Tree]


def legacy(instances: Sequence[Instance], setting: Setting) -> Tree:
    """Every instance in the folder `DICOMDIR`, its file named by its SOP Instance UID."""
    folder = setting.stage / "DICOMDIR"
    folder.mkdir()
    for instance in instances:
        os.rename(instance.path, f"{folder}/{instance.sop_instance_uid}")
    return Tree([("DICOMDIR", folder)])


LAYOUTS: dict[LayoutName, Layout] = {"legacy": legacy, "pdi": pdi}
