"""How contenders are measured: in turns, by CPU time, as ratios within one round."""

import gc
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

MEMORY = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
Contender = Callable[[], float]


def rounds(contenders: dict[str, Contender], n: int, count: int) -> dict[str, tuple[float, float]]:
    """For each contender the median CPU time for one event in us, and the median ratio of the first one's to it."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(count):
        order = list(contenders) if turn % 2 == 0 else list(contenders)[::-1]
        for name in order:
            gc.collect()
            times[name].append(contenders[name]() / n * 1e6)
    first = times[next(iter(contenders))]
    return {
        name: (statistics.median(own), statistics.median(a / b for a, b in zip(first, own, strict=True)))
        for name, own in times.items()
    }


def show(title: str, figures: dict[str, tuple[float, float]]) -> None:
    print(title)
    for name, (us, ratio) in figures.items():
        print(f"  {name:50} {us:9.2f} us  {ratio:6.2f}x")


@contextmanager
def folder(place: Path | None = MEMORY) -> Iterator[str]:
    """A folder that goes away; in memory if there is one, so that software is measured and not a disk."""
    with tempfile.TemporaryDirectory(dir=place) as name:
        yield name


def fresh(place: str, name: str) -> str:
    """The path of a file that is not there."""
    for suffix in ("", "-wal", "-shm"):
        Path(place, name + suffix).unlink(missing_ok=True)
    return str(Path(place, name))
