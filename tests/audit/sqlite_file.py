"""The pages of a table in a file of SQLite, by the description of such files (https://sqlite.org/fileformat.html, 1.6)."""

from typing import NamedTuple

SIZE = 4096


class Row(NamedTuple):
    """A row of a table: its key, and where its columns end in the file."""

    seq: int
    end: int


class Page(NamedTuple):
    """A page of the tree of a table: where it begins in the file, whether it holds rows, and the greatest key on it."""

    offset: int
    leaf: bool
    last: int

    def cells(self, data: bytes) -> list[tuple[int, int]]:
        """Where each row of a leaf begins and ends in the file."""
        found = []
        for at in _pointers(data, self.offset, 8):
            size, behind = _varint(data, at)
            _, content = _varint(data, behind)
            assert size < SIZE - 35, "a row that goes on elsewhere"
            found.append((at, content + size))
        return found

    def rows(self, data: bytes) -> list[tuple[int, "Row"]]:
        """The columns of the rows of a leaf, by where they begin."""
        found = []
        for at, end in self.cells(data):
            key, content = _varint(data, _varint(data, at)[1])
            found.append((content, Row(key, end)))
        return found

    def used(self, data: bytes) -> set[int]:
        """The bytes of the page that mean something: its head, its pointers, and what they point to."""
        head = 8 if self.leaf else 12
        count = int.from_bytes(data[self.offset + 3 : self.offset + 5], "big")
        used = set(range(self.offset, self.offset + head + 2 * count))
        if self.leaf:
            for at, end in self.cells(data):
                used.update(range(at, end))
        else:
            for at in _pointers(data, self.offset, 12):
                used.update(range(at, _varint(data, at + 4)[1]))
        return used


def pages(data: bytes, root: int) -> list[Page]:
    """All pages of the table whose root is the page of that number."""
    at = (root - 1) * SIZE
    if data[at] == 13:
        keys = [_varint(data, _varint(data, cell)[1])[0] for cell in _pointers(data, at, 8)]
        return [Page(at, True, max(keys, default=0))]
    assert data[at] == 5, "a page of a table that has rows only"
    children = [int.from_bytes(data[cell : cell + 4], "big") for cell in _pointers(data, at, 12)]
    children.append(int.from_bytes(data[at + 8 : at + 12], "big"))
    return [Page(at, False, 0), *(page for child in children for page in pages(data, child))]


def _pointers(data: bytes, at: int, head: int) -> list[int]:
    """The places in the file that the pointers of a page name."""
    count = int.from_bytes(data[at + 3 : at + 5], "big")
    return [at + int.from_bytes(data[n : n + 2], "big") for n in range(at + head, at + head + 2 * count, 2)]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number and where it ends."""
    value = 0
    for n in range(8):
        value = value << 7 | data[at + n] & 0x7F
        if data[at + n] < 0x80:
            return value, at + n + 1
    return value << 8 | data[at + 8], at + 9
