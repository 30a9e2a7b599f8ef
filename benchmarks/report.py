"""The benchmark's figures as a table, and whether each target was met."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.flows import Case, Run
from benchmarks.service import Observed, Pages

MB = 10**6
HEADINGS = ("images", "flow", "seconds", "(range)", "written MB", "/ instances", "first byte s", "worker peak MB")
# Of the disc's wall time; the smallest study has none, for there the programs' own start counts most.
FASTER_THAN_NOTES = {200: 15.0}
RATIOS = (
    ("mkiso", "floor", "{:.2f} times the floor", {200: 1.2, 2000: 1.2}),
    ("zip", "mkiso", "the ZIP {:.2f} times the ISO", {200: 1.5, 2000: 1.5}),
    ("protected", "zip", "the protected ZIP {:.2f} times the ZIP", {200: 3.0, 2000: 3.0}),
    ("pdi, no pictures", "mkiso", "pdi without pictures {:.2f} times legacy", {200: 1.2, 2000: 1.2}),
)
PICTURES = {200: 1.0, 2000: 3.0}  # s
PAGES, PHONE = 3.0, 8.0  # per cent of the disc, MB
WRITTEN = 1.02
STREAMING = 20 * MB


@dataclass(frozen=True)
class Measured:
    """All runs of one study, by flow, the discs that were observed from inside, and the pages of one."""

    case: Case
    runs: dict[str, list[Run]]
    observed: list[Observed]
    pages: list[Pages]

    def seconds(self, flow: str) -> float:
        return self.of(flow, lambda run: run.seconds)

    def of(self, flow: str, value: Callable[[Run], float]) -> float:
        return median(value(run) for run in self.runs[flow])

    @property
    def written(self) -> float:
        """What mkiso wrote for one byte of the instances: by the kernel's count, or as found on disk if more."""
        found = max((one.on_disk for one in self.observed), default=0)
        return max(self.of("mkiso", lambda run: run.written), found) / self.case.bytes


def table(measured: Iterable[Measured]) -> str:
    """The figures of every study and flow, and below them the ratios, phases and targets."""
    figures = [row for one in measured for row in _rows(one)]
    return "\n".join(_aligned([HEADINGS, *figures]))


def _rows(one: Measured) -> Iterable[Sequence[str]]:
    for flow, runs in one.runs.items():
        times = [run.seconds for run in runs]
        written = one.of(flow, lambda run: run.written)
        http = bool(runs[0].peak)
        yield (
            str(one.case.images),
            flow,
            f"{median(times):.3f}",
            f"({min(times):.3f} to {max(times):.3f}, {len(times)})",
            f"{written / MB:.2f}",
            f"{written / one.case.bytes:.4f}",
            f"{one.of(flow, lambda run: run.first_byte):.3f}" if http else "-",
            f"{max(run.peak for run in runs) / MB:.1f}" if http else "-",
        )


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]


def details(one: Measured) -> str:
    """Ratios, mkiso's phases, and what was seen from inside, of one study."""
    mkiso, images = one.seconds("mkiso"), one.case.images
    names = dict.fromkeys(name for run in one.runs["mkiso"] for name in run.phases)
    phases = ((name, one.of("mkiso", lambda run, key=name: run.phases.get(key, 0.0))) for name in names)
    lines = [
        f"{images} images: {one.seconds('notes') / mkiso:.1f} times faster than the notes,"
        f" {mkiso / one.seconds('floor'):.2f} times the floor",
        "  phases: " + ", ".join(f"{name} {seconds:.3f} s" for name, seconds in phases),
    ]
    if one.observed:
        last = median(seen.since_last_image for seen in one.observed)
        found = max(seen.on_disk for seen in one.observed) / one.case.bytes
        lines.append(f"  from the last image on disk to the first byte: {last:.3f} s")
        lines.append(f"  on disk at the first byte: {found:.4f} times the instances")
    return "\n".join(lines)


def targets(measured: Iterable[Measured], large_disc: Observed | None) -> str:
    """A line for each target: ok or missed."""
    lines = [line for one in measured for line in _targets_of(one)]
    if large_disc:
        text = (
            f"a disc of {large_disc.size / 10**9:.2f} GB: {large_disc.growth / MB:.1f} MB more memory while it"
            f" streams, {large_disc.growth_in_all / MB:.1f} MB in the whole job"
        )
        lines.append(_judged(large_disc.growth < STREAMING, text, STREAMING / MB))
    return "\n".join(lines)


def _targets_of(one: Measured) -> Iterator[str]:
    images = one.case.images
    if least := FASTER_THAN_NOTES.get(images):
        times = one.seconds("notes") / one.seconds("mkiso")
        yield _judged(times >= least, f"{images} images: {times:.1f} times faster than the notes", least)
    for flow, other, text, limits in RATIOS:
        if most := limits.get(images):
            times = one.seconds(flow) / one.seconds(other)
            yield _judged(times <= most, f"{images} images: {text.format(times)}", most)
    if most := PICTURES.get(images):
        more = one.seconds("pdi") - one.seconds("pdi, no pictures")
        yield _judged(more <= most, f"{images} images: the pictures add {more:.2f} s", most)
    for found in one.pages:
        part = 100 * found.pages / found.disc
        yield _judged(part <= PAGES, f"{images} images: the pages are {part:.2f} % of the disc", PAGES)
        yield _judged(found.phone <= PHONE * MB, f"{images} images: PHONE.HTM has {found.phone / MB:.2f} MB", PHONE)
    yield _judged(one.written <= WRITTEN, f"{images} images: {one.written:.4f} written", WRITTEN)


def _judged(met: bool, text: str, target: float) -> str:
    return f"{'ok    ' if met else 'missed'}  {text} (target {target:g})"
