"""A reader of HTML pages that trusts nobody: balanced tags, nothing from elsewhere, no script."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "br", "hr", "img", "link", "input"}
LOADING = {"src", "srcset", "href", "data", "action", "formaction", "poster", "background", "manifest", "ping", "cite"}


@dataclass
class Page(HTMLParser):
    """What is on a page; reading it fails where it is not well formed."""

    text: str = ""
    tags: set[str] = field(default_factory=set)
    articles: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)
    """attributes that make a browser load something or run something"""
    policy: str = ""
    style: str = ""

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []

    @classmethod
    def of(cls, source: str) -> "Page":
        page = cls()
        page.feed(source)
        page.close()
        assert page.open == [], f"never closed: {page.open}"
        return page

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        facts = dict(attrs)
        self.loads += [f"{tag} {name}={value}" for name, value in attrs if name in LOADING or name.startswith("on")]
        if tag == "article":
            self.articles.append(facts["id"] or "")
        if facts.get("http-equiv") == "Content-Security-Policy":
            self.policy = facts["content"] or ""
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes another"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            self.style += data
        else:
            self.text += data
