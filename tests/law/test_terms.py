"""Terms: engineers who know KVM find the words of the kernel, and none of the names that they replaced."""

import ast
import re

from tests.law.tree import MODULES, TOP, left, name_of, parsed

OLD = {
    "told": "returned, result",
    "behind": "after",
    "beside": "in addition, next to",
    "anew": "again",
    "is no range": "invalid range",
    "bears? witness|moves? no page": "late: recorded, not applied",
    "wish(?:es|ed)?": "conversion request",
    "heard|testimon\\w+|Claim": "corroborating report",
    "unshown": "missing conversion",
    "hulls?": "invalidation range",
    "(?:comes?|came|coming) off": "cannot be unmapped",
    "touch(?:es|ed)?": "faults, accesses",
    "met": "first observed",
    "news": "pending changes",
    "speaks? against": "name the evidence, or not known",
    "judges?": "check",
    "rivals?": "contenders",
    "roofs?|doors?|witness(?:es)?|testif\\w+|tales?": "plain English",
}
"""Old term (a whole word) to what stands in its place."""
SPACE = re.compile(r"(?<!address )(?<!disk )(?<![`\":.])\bspaces?\b(?! left)(?![`\"(:])")
"""The attribute owner was a "space"; disks and addresses have space, and lines of text have spaces."""
STORED = ("docs/record.md", "docs/sql.md", "store/", "model/events/", "render/html.py")
"""Where columns have the names that they have in stores of all versions, and where a stylesheet stands."""
EXEMPT = re.compile(r'example = |    CONVERT_REQUEST = "|REGION_END = "')
"""Lines as they are printed by others, and words that stores hold."""
CLASSES = frozenset(
    [
        "Live",
        "Said",
        "Speaker",
        "Framing",
        "Frame",
        "Growing",
        "Chooser",
        "Remembered",
        "Keeper",
        "Judge",
        "Looks",
        "Wrong",
        "Claim",
        "_bury",
        "unwrap",
        "FINE",
        "forget_news",
    ]
)
SHOWN = [
    *sorted(
        path
        for folder in ("gmemstate", "tools")
        for path in (TOP / folder).rglob("*.*")
        if path.suffix in (".py", ".md", ".toml")
    ),
    TOP / "README.md",
]


def test_no_old_term_is_left():
    """Code, pages, data of stories and scenarios, and the README."""
    old = re.compile(rf"\b(?:{'|'.join(OLD)})\b")
    found = []
    for path in SHOWN:
        place = str(path.relative_to(TOP))
        words = (old,) if any(part in place for part in STORED) else (old, SPACE)
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if not EXEMPT.match(line):
                found += [
                    f"{place}:{number}: {match[0]}: {line.strip()[:90]}" for word in words for match in word.finditer(line)
                ]
    assert not left("terms", found)


def test_no_old_name_is_left():
    """The classes and functions that were renamed do not come back."""
    found = []
    for module in MODULES:
        for node in ast.walk(parsed(module)):
            name = getattr(node, "name", "") if isinstance(node, ast.ClassDef | ast.FunctionDef) else getattr(node, "id", "")
            if name in CLASSES:
                found.append(f"{name_of(module)}:{node.lineno}: {name}")
    assert not left("names", found)
