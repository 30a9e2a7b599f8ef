"""What instances of a kind came to so far, and so what a disc is likely to weigh before anything is moved.

A kind is a modality, and within it a SOP class. It is learnt from what a job handed out, in the transaction that ends
the job as done: a few rows, of nobody in particular, which no forgetting touches.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from mkiso.ledger.schema import experience, instances

ENOUGH = 300  # instances, from which on experience may refuse
DEVIATIONS = 2.0


@dataclass(frozen=True)
class Kind:
    """Instances of one modality or SOP class: how many, the sum of their bytes, and of the squares of these."""

    instances: int = 0
    bytes: int = 0
    squares: float = 0.0

    @property
    def mean(self) -> float:
        return self.bytes / self.instances

    @property
    def deviation(self) -> float:
        """The standard deviation, in bytes."""
        return math.sqrt(max(0.0, self.squares / self.instances - self.mean**2))

    def __add__(self, other: Kind) -> Kind:
        return Kind(self.instances + other.instances, self.bytes + other.bytes, self.squares + other.squares)


class Sizes:
    """What instances are likely to come to, by modality and by SOP class: a count's key is the name or UID of either.

    A disc has a little more than its instances: its pages, their pictures, the viewer.
    """

    def __init__(self, kinds: Mapping[str, Kind]) -> None:
        self._kinds = kinds

    def likely(self, counts: Mapping[str, int]) -> int | None:
        """Bytes of so many instances of each kind; None where nothing is known of one."""
        wanted = {name: count for name, count in counts.items() if count}
        if not self._kinds.keys() >= wanted.keys():
            return None
        return round(sum(count * self._kinds[name].mean for name, count in wanted.items()))

    def least(self, counts: Mapping[str, int]) -> int:
        """Bytes that so many instances hardly stay below: what a job may be refused for, before it moves anything.

        A kind counts from ENOUGH instances on, with its mean less DEVIATIONS standard deviations: where all are alike
        (CT), that is what they weigh; where they differ much (still and moving ultrasound, old and new detectors) it is
        little or nothing, so that what would have fitted is not refused. What is too large all the same, the exact size
        tells later.
        """
        known = ((self._kinds.get(name, Kind()), count) for name, count in counts.items())
        enough = ((kind, count) for kind, count in known if kind.instances >= ENOUGH)
        return round(sum(count * max(0.0, kind.mean - DEVIATIONS * kind.deviation) for kind, count in enough))


def read_sizes(connection: sa.Connection) -> Sizes:
    kinds: dict[str, Kind] = defaultdict(Kind)
    for modality, sop_class_uid, *sums in connection.execute(sa.select(experience)):
        for name in (modality, sop_class_uid):
            kinds[name] += Kind(*sums)
    return Sizes(dict(kinds))


def learn(connection: sa.Connection, job_ids: Sequence[str]) -> None:
    """Add what these jobs handed out; one process after the other, as `totals.change` counts."""
    kind, size = (instances.c.modality, instances.c.sop_class_uid), instances.c.bytes
    sums = sa.select(*kind, sa.func.count(), sa.func.sum(size), sa.func.sum(size * 1.0 * size))
    of_jobs = sums.where(instances.c.job_id.in_(job_ids), instances.c.modality != "").group_by(*kind)
    for modality, sop_class_uid, count, total, squares in connection.execute(of_jobs).all() if job_ids else ():
        _add(connection, modality, sop_class_uid, Kind(count, int(total), float(squares)))


def _add(connection: sa.Connection, modality: str, sop_class_uid: str, more: Kind) -> None:
    named, sums = {"modality": modality, "sop_class_uid": sop_class_uid}, vars(more)
    which = [experience.c[name] == value for name, value in named.items()]
    adding = experience.update().where(*which).values({name: experience.c[name] + sums[name] for name in sums})
    if not connection.execute(adding).rowcount:
        connection.execute(experience.insert().values(named | sums))
