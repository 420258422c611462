"""What the program of a capture has done, by its own account."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tests.traces import meta


@dataclass(frozen=True)
class Report:
    """One line of ground truth; ``begun`` is when the operation began, or was over if only that is known (s)."""

    begun: float
    op: str
    fields: dict[str, str]
    note: str
    text: str

    def number(self, name: str) -> int:
        return int(self.fields[name].split("(")[0], 0)

    @property
    def errno(self) -> int:
        return self.number("errno") if "errno" in self.fields else 0

    @property
    def pages(self) -> range:
        """The whole pages that are named."""
        start = self.number("offset" if "offset" in self.fields else "gpa")
        size = self.number("size" if "size" in self.fields else "len")
        return range(start >> 12, start + size >> 12)


def reports(case: str) -> Iterator[Report]:
    for line in meta(case)["ground_truth"] or ():
        text, _, note = line.partition(" note=")
        match = re.match(r"mono=([\d.]+) tid=\d+ op=(\w+)(.*)", text)
        assert match is not None, line
        fields = dict(re.findall(r"(\w+)=(\S+)", match[3]))
        yield Report(float(fields.get("started", match[1])), match[2], fields, note, f"{match[2]}{match[3]} {note}")
