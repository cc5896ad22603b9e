"""Decides how a report looks in a browser: one file that needs no network, no script and no second file."""

from __future__ import annotations

import re
from html import escape

from vibeserve.narrative.blocks import Block, Bullets, Code, Document, Figure, Quote, Table, Text
from vibeserve.wording import clean


def render(document: Document) -> str:
    """The whole file."""
    links = "".join(f'<a href="#{s.anchor}">{escape(s.title)}</a>' for s in document.sections)
    lead = "".join(f"<li>{_inline(item)}</li>" for item in document.lead)
    body = "\n".join(
        f'<section id="{s.anchor}"><h2>{escape(s.title)}</h2>\n{"".join(_block(b) for b in s.blocks)}</section>'
        for s in document.sections
    )
    title = escape(clean(document.title))
    policy = "default-src 'none'; style-src 'unsafe-inline'"  # whatever a candidate wrote, nothing is run or fetched
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark">\n<style>{_STYLE}</style></head>\n'
        f"<body><header><h1>{title}</h1><ul>{lead}</ul></header>\n"
        f'<nav aria-label="Sections">{links}</nav>\n<main>{body}</main></body></html>\n'
    )


def _block(block: Block) -> str:
    match block:
        case Text(text=text):
            return f"<p>{_inline(text)}</p>\n"
        case Quote(text=text):
            head = f"<summary>{_inline(block.summary)}</summary>"
            return f'<details>{head}<pre class="prose">{escape(clean(text))}</pre></details>\n'
        case Bullets(items=items):
            return f"<ul>{''.join(f'<li>{_inline(item)}</li>' for item in items)}</ul>\n"
        case Code():
            return _code(block)
        case Table():
            return _table(block)
        case Figure(svg=svg, caption=caption):
            return f"<figure>{svg}<figcaption>{_inline(caption)}</figcaption></figure>\n" if svg else ""


def _inline(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(clean(text)))


def _code(block: Code) -> str:
    lines = escape(clean(block.text)).splitlines()
    if block.language == "diff":
        kinds = {"+": "add", "-": "cut", "@": "hunk"}
        lines = [f'<span class="{kinds[line[0]]}">{line}</span>' if line[:1] in kinds else line for line in lines]
    code = f'<pre tabindex="0"><code>{chr(10).join(lines)}</code></pre>'
    return f"<details><summary>{_inline(block.summary)}</summary>{code}</details>\n" if block.summary else f"{code}\n"


def _table(table: Table) -> str:
    def row(cells: object, tag: str) -> str:
        assert isinstance(cells, list | tuple)
        made = []
        for i, cell in enumerate(cells):
            kind = ' class="number"' if i in table.numeric else ""
            kind += ' scope="col"' if tag == "th" else ""
            first, _, rest = cell.partition("\n")
            below = f"<br><small>{_inline(rest)}</small>" if rest else ""
            made.append(f"<{tag}{kind}>{_inline(first)}{below}</{tag}>")
        return f"<tr>{''.join(made)}</tr>"

    caption = f"<caption>{_inline(table.caption)}</caption>" if table.caption else ""
    body = "".join(row(tuple(cells), "td") for cells in table.rows)
    head = f"<thead>{row(tuple(table.head), 'th')}</thead>"
    return f'<div class="wide" tabindex="0"><table>{caption}{head}<tbody>{body}</tbody></table></div>\n'


_STYLE = """
:root { --ink: #1d2330; --soft: #5b6475; --line: #d9dde5; --ground: #fff; --panel: #f5f7fa; --blue: #1f5fd0;
  --grey: #a9b1bf; --orange: #b45309; --green: #14713c; --red: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --soft: #a3acbb; --line: #363d4a; --ground: #14171d;
  --panel: #1d222b; --blue: #7aa8ff; --grey: #626b7a; --orange: #f0a35e; --green: #6fd08c; --red: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 68rem; padding: 2rem 1.25rem 4rem; color: var(--ink); background: var(--ground);
  font: 16px/1.55 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .75rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .75rem; padding-top: .75rem; border-top: 1px solid var(--line); }
header ul { padding-left: 1.2rem; margin: 0 0 1rem; }
nav { display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; }
a { color: var(--blue); }
p, ul, blockquote, figure, details, .wide { margin: .75rem 0; }
li { margin: .2rem 0; overflow-wrap: anywhere; }
code { font: .875em/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
pre { margin: 0; padding: .75rem 1rem; overflow-x: auto; background: var(--panel); border-radius: 6px; }
pre code { overflow-wrap: normal; }
.wide { overflow-x: auto; background:
  linear-gradient(90deg, var(--ground) 30%, transparent) 0 / 2.5rem 100% local,
  linear-gradient(-90deg, var(--ground) 30%, transparent) 100% / 2.5rem 100% local,
  linear-gradient(90deg, var(--line), transparent) 0 / .6rem 100% scroll,
  linear-gradient(-90deg, var(--line), transparent) 100% / .6rem 100% scroll; background-repeat: no-repeat; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; width: 100%; }
caption { text-align: left; color: var(--soft); padding-bottom: .35rem; }
th, td { text-align: left; vertical-align: top; padding: .35rem .9rem .35rem 0; border-bottom: 1px solid var(--line); }
th { font-weight: 600; }
small { color: var(--soft); font-size: .85em; } .number { text-align: right; white-space: nowrap; }
summary { cursor: pointer; padding: .2rem 0; } details pre { margin-top: .4rem; max-height: 32rem; }
.add { color: var(--green); } .cut { color: var(--red); } .hunk { color: var(--blue); }
figure { margin: 1.25rem 0; } figcaption { color: var(--soft); font-size: .9rem; }
.prose { white-space: pre-wrap; font-family: inherit; font-size: .9rem; color: var(--soft); }
.plot { width: 100%; height: auto; max-width: 42rem; display: block; }
.plot text { fill: var(--ink); font: 12px system-ui, sans-serif; } .plot .tick { fill: var(--soft); }
.plot .name { font-size: 12px; paint-order: stroke; stroke: var(--ground); stroke-width: 3px; }
.plot .grid { stroke: var(--line); stroke-width: .6; fill: none; }
.plot .axis { stroke: var(--soft); fill: none; } .plot .bar { stroke: currentColor; stroke-width: 1.2; opacity: .55; }
.plot .front { color: var(--blue); fill: var(--blue); } .plot .dominated { color: var(--grey); fill: var(--grey); }
.plot .seed { color: var(--orange); fill: var(--orange); } .plot .baseline { color: var(--green); fill: var(--green); }
@media (max-width: 40rem) { .plot text, .plot .name { font-size: 15px; } }
@media print { body { max-width: none; } details { display: block; } nav { display: none; } }
"""
