"""A post-mortem as one self-contained HTML page: no script, nothing from elsewhere, dark or light as the reader has it."""

from collections.abc import Iterable
from html import escape

from gmemstate.postmortem.incident import Incident, IncidentTable, PostMortem, Section
from gmemstate.text import printable

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --blame: #b33; }
@media (prefers-color-scheme: dark) { :root { --blame: #f88; } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.3rem; } h2 { font-size: 1.15rem; margin: 0; }
article { border: 1px solid var(--line); border-radius: 6px; padding: 1rem 1.25rem; margin: 1.5rem 0; }
.blame { color: var(--blame); } .who, .note { color: GrayText; }
table { border-collapse: collapse; font: 13px/1.6 ui-monospace, monospace; margin: .8rem 0; display: block; overflow-x: auto; }
th, td { text-align: left; padding: .1rem .9rem .1rem 0; white-space: nowrap; vertical-align: top; }
th { border-bottom: 1px solid var(--line); font-weight: 600; }
dl { display: grid; grid-template-columns: 6rem 1fr; gap: .35rem .5rem; margin: .8rem 0 0; }
dt { font-weight: 600; } dd { margin: 0; overflow-wrap: anywhere; }
@media print { article { break-inside: avoid; } }
"""


def page(found: PostMortem) -> str:
    """The page of a post-mortem. All text is escaped: names of processes and files are the guest's or anybody's."""
    bodies = [_article(incident, found.count) for incident in found.incidents]
    if found.silence is not None:
        bodies.append(f"<p>{_shown(found.silence)}</p>")
    return (
        "<!doctype html>\n"
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>gmemstate post-mortem</title><style>{STYLE}</style></head><body>\n"
        "<h1>Post-mortem of guest_memfd conversions</h1>\n" + "\n".join(bodies) + f"\n{_list(found.ends())}\n</body></html>\n"
    )


def _article(incident: Incident, count: int) -> str:
    parts = [
        f'<h2><span class="blame">{_shown(incident.blame)}</span>: {_shown(incident.title)}</h2>',
        f'<p class="who">{_shown(incident.who)} · incident {incident.number} of {count}</p>',
        f"<p>{_shown(incident.summary)}</p>",
    ]
    if incident.timeline:
        parts.append(_table(IncidentTable((), tuple(incident.rows()))))
    if incident.table is not None:
        parts.append(_table(incident.table))
    parts.append(_list(incident.margin()))
    return f'<article id="incident-{incident.number}">\n' + "\n".join(parts) + "\n</article>"


def _table(table: IncidentTable) -> str:
    head = "<tr>" + "".join(f"<th>{_shown(cell)}</th>" for cell in table.header) + "</tr>" if table.header else ""
    rows = "\n".join("<tr>" + "".join(f"<td>{_shown(cell)}</td>" for cell in row) + "</tr>" for row in table.rows)
    return f"<table>{head}{rows}</table>"


def _list(sections: Iterable[Section]) -> str:
    return "<dl>" + "\n".join(f"<dt>{_shown(one.word)}</dt><dd>{_shown(one.text)}</dd>" for one in sections) + "</dl>"


def _shown(text: str) -> str:
    """A text of anybody's: neither tags nor what turns text round or hides it."""
    return escape(printable(text))
