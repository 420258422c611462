"""IngestSession the text of ftrace, against loops that do the least that can be done with each line.

The trace is a capture of the kernel's selftest, repeated with its times shifted.
"""

import gzip
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from benchmarks.rounds import folder, rounds, show

from gmemstate.ingest.input import Input
from gmemstate.ingest.readers.ftrace import FtraceReader
from gmemstate.ingest.session import IngestSession

TOP = Path(__file__).resolve().parents[2]
CAPTURES = {
    "half_done: nearly every line is used": TOP / "gmemstate/data/demo/half_done.txt",
    "st_conv_full: most lines are context": TOP / "tests/captures/st_conv_full/ftrace.txt.gz",
}
LINE = re.compile(rb" *(.+?)-(\d+) +\[(\d+)\] (\S+) +(\d+)\.(\d+): (\w+)")
NUMBERS = re.compile(rb"(\w+)[=: ] ?(0x[0-9a-f]+|\d+)")


def parse() -> None:
    for title, capture in CAPTURES.items():
        with folder(None) as place:
            trace, n = repeated(capture, Path(place, "trace.txt"), 150_000)
            contenders = {
                "one regular expression and int() for each line": lambda: timed(bare(trace)),
                "gmemstate, lines to facts": lambda: timed(facts(trace)),
                "gmemstate, lines to events": lambda: timed(events(trace)),
                "the lines alone": lambda: timed(split(trace)),
            }
            figures = rounds(contenders, n, 5)
            show(f"parse, {capture.parent.name}/{capture.name}: {title.partition(': ')[2]}", figures)
            size = trace.stat().st_size
            for name, (us, _) in figures.items():
                print(f"  {name:50} {1e6 / us:11,.0f} lines/s  {size / n / us:7.1f} MB/s")
            print(f"  resident at most: {grown(capture, trace)}")


def repeated(capture: Path, path: Path, least: int) -> tuple[Path, int]:
    """A trace of at least so many lines, and their number."""
    data = capture.read_bytes()
    lines = (gzip.decompress(data) if capture.suffix == ".gz" else data).splitlines(keepends=True)
    stamped = [re.split(rb" (\d+)(?=\.\d{6}: )", line, maxsplit=1) for line in lines if not line.startswith(b"#")]
    whole = [int(parts[1]) for parts in stamped if len(parts) == 3]
    length = whole[-1] - whole[0] + 1
    times = -(-least // len(stamped))
    with path.open("wb") as file:
        file.write(b"# tracer: nop\n")
        for n in range(times):
            file.writelines(
                b"%b %d%b" % (parts[0], int(parts[1]) + n * length, parts[2]) if len(parts) == 3 else parts[0]
                for parts in stamped
            )
    return path, times * len(stamped) + 1


def timed(results: Iterable[object]) -> float:
    begun = time.process_time()
    for _ in results:
        pass
    return time.process_time() - begun


def split(trace: Path) -> Iterator[bytes]:
    with trace.open("rb") as file:
        yield from file


def bare(trace: Path) -> Iterator[object]:
    """What a program does that somebody writes in five minutes."""
    with trace.open("rb") as file:
        for line in file:
            match = LINE.match(line)
            if match:
                _, thread, _, _, seconds, part, _ = match.groups()
                numbers = {name: int(value, 0) for name, value in NUMBERS.findall(line, match.end())}
                yield int(thread), int(seconds) * 1_000_000 + int(part), numbers


def facts(trace: Path) -> Iterator[object]:
    source, reader = Input(str(trace)), FtraceReader()
    for number, line in enumerate(source.lines(), 1):
        yield reader.parse(number, line.decode())
    source.close()


def events(trace: Path) -> Iterator[object]:
    source = Input(str(trace))
    yield from IngestSession(source).events()
    source.close()


ALONE = """
import resource, sys
from gmemstate.ingest.input import Input
from gmemstate.ingest.session import IngestSession
for _ in IngestSession(Input(sys.argv[1])).events():
    pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)
"""


def grown(capture: Path, trace: Path) -> str:
    """The memory that a process needs which reads the trace and nothing else, and one that reads four times as much."""
    longer, _ = repeated(capture, trace.with_name("longer.txt"), 600_000)
    sizes = []
    for path in (trace, longer):
        done = subprocess.run([sys.executable, "-c", ALONE, str(path)], capture_output=True, text=True, check=True, cwd=TOP)
        sizes.append(f"{done.stdout.strip()} MB for {path.stat().st_size / 1e6:.0f} MB of text")
    return ", ".join(sizes)
