"""Decides how a report is written as Markdown; drawings are left to the HTML."""

from __future__ import annotations

from vibeserve.narrative.blocks import Block, Bullets, Code, Document, Figure, Quote, Table, Text
from vibeserve.wording import clean


def render(document: Document) -> str:
    """The whole file."""
    parts = [f"# {clean(document.title)}", "\n".join(f"- {clean(item)}" for item in document.lead)]
    for section in document.sections:
        parts.append(f"## {section.title}")
        parts += [text for block in section.blocks if (text := _block(block))]
    return "\n\n".join(parts) + "\n"


def _block(block: Block) -> str:
    match block:
        case Text(text=text):
            return clean(text)
        case Quote(text=text):
            return "\n".join([f"{block.summary}:", "", *(f"> {line}".rstrip() for line in clean(text).splitlines())])
        case Bullets(items=items):
            return "\n".join(f"- {clean(item)}" for item in items)
        case Code():
            return _code(block)
        case Table():
            return _table(block)
        case Figure():
            return ""


def _code(block: Code) -> str:
    text = clean(block.text).rstrip("\n")
    fence = "```"
    while fence in text:
        fence += "`"
    code = f"{fence}{block.language}\n{text}\n{fence}"
    return f"<details><summary>{_cell(block.summary)}</summary>\n\n{code}\n\n</details>" if block.summary else code


def _table(table: Table) -> str:
    rule = ["---:" if i in table.numeric else "---" for i in range(len(table.head))]
    rows = [[_cell(cell) for cell in row] for row in (table.head, *table.rows)]
    lines = [f"| {' | '.join(row)} |" for row in (rows[0], rule, *rows[1:])]
    return "\n".join([f"{table.caption}:", "", *lines] if table.caption else lines)


def _cell(text: str) -> str:
    return clean(text).replace("|", "\\|").replace("<", "&lt;").replace("\n", ", ")
