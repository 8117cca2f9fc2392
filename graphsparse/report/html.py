"""One page: runs as a single HTML file that needs no network, and pieces of it for notebooks."""

from __future__ import annotations

import base64
import hashlib
import html
import importlib.util
import json
import os
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from graphsparse.atomic_write import atomic_write
from graphsparse.report.charts import LEVELS
from graphsparse.report.parts import (
    Block,
    Cell,
    Chart,
    Command,
    Facts,
    Neighbourhoods,
    Prose,
    Run,
    Section,
    Sheet,
)
from graphsparse.report.record import plain, versions
from graphsparse.report.side_by_side import comparison
from graphsparse.untrusted import LARGEST_JSON, read_bytes, read_json_object

_ASSETS = Path(__file__).parent / "assets"
_EDGES = ("kept edges", "dropped edges")
_FIRST = "the median degree"  # the centre that is drawn first: a hub would be a tangle
_HEIGHT = 380  # of a chart, in pixels
_MOST_ROWS = 40  # of a table in a notebook
_MOST_CLASSES = 10  # that have colours of their own in a drawing


def write_page(path: str | os.PathLike[str], runs: Sequence[Run]) -> Path:
    """Write one HTML file that shows runs, several beside each other; it needs nothing but itself.

    The chart library (plotly, 4.8 MB) lies in the page. Every text of a run is escaped, and the page's own policy lets
    no script run but its two, and nothing be fetched.

    Args:
        path: where to write, atomically.
        runs: what to show, at least one.

    Returns:
        The path that was written.

    Raises:
        OSError: it cannot be written.
        ModuleNotFoundError: plotly is not installed.
        ValueError: there is no run.
    """
    text = page(runs)
    path = Path(path)
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return path


def page(runs: Sequence[Run]) -> str:
    """The page of `write_page` as a text."""
    if not runs:
        raise ValueError("a page shows at least one run")
    writer = _Writer()
    if len(runs) == 1:
        title, lead = runs[0].name, runs[0].lead
        heading = f'{_text(title)} <span class="kind">{_text(runs[0].kind)}</span>'
        body = writer.sections(runs[0].sections, 2)
        links = writer.links
    else:
        title = heading = f"{len(runs)} runs compared"
        lead = "Each run has a part of its own below the comparison."
        parts = [writer.sections(comparison(runs), 2)]
        links = []
        for number, run in enumerate(runs):
            links.append((f"run-{number}", run.name))
            head = f'<h2>{_text(run.name)} <span class="kind">{_text(run.kind)}</span></h2>'
            inner = writer.sections(run.sections, 3)
            parts.append(f'<article id="run-{number}">{head}<p class="lead">{_text(run.lead)}</p>{inner}</article>')
        body = "\n".join(parts)
    data = {**_rounded(plain(writer.data())), "record": plain(runs[0].record) if len(runs) == 1 else {}}
    return _document(title, heading, lead, links, body, data)


def record_in(path: Path) -> dict[str, Any]:
    """The record of the one run that a page was written for; empty where the page holds none.

    Raises:
        ValueError: its data are damaged; OSError: it cannot be read.
    """
    text = read_bytes(path, largest=LARGEST_JSON).decode("utf-8", "replace")
    found = re.search(r'<script type="application/json" id="page-data">(.*?)</script>', text, re.DOTALL)
    return dict(read_json_object(found[1].encode()).get("record") or {}) if found else {}


def fragment(blocks: Sequence[Block]) -> str:
    """The same pieces for a notebook: small, without script or library; charts are left to the page."""
    writer = _Writer(tools=False)
    shown = [block for block in blocks if not isinstance(block, (Chart, Neighbourhoods))]
    return f'<div class="graphsparse">{"".join(map(writer.block, shown))}</div>'


class _Writer:
    """Turns sections into HTML, and collects what the page's script needs."""

    def __init__(self, tools: bool = True) -> None:
        self.charts: dict[str, Any] = {}
        self.drawings: dict[str, Any] = {}
        self.groups: dict[str, list[str]] = {}
        self.links: list[tuple[str, str]] = []
        self._tools = tools
        self._count = 0
        self._scope = ""
        self._hinted = False

    def data(self) -> dict[str, Any]:
        """What the script needs."""
        return {"charts": self.charts, "drawings": self.drawings, "groups": self.groups, "levels": LEVELS}

    def sections(self, sections: Sequence[Section], level: int) -> str:
        """All sections, their headings at a level."""
        return "\n".join(self._section(section, level) for section in sections)

    def _section(self, section: Section, level: int) -> str:
        name = self._name("section")
        self.links.append((name, section.title))
        self._scope, legend = "", ""
        if section.groups:
            self._scope = name
            self.groups[name] = list(section.groups)
            legend = self._legend(name)
        inner = "\n".join(map(self.block, section.blocks))
        heading = f"<summary><h{level}>{_text(section.title)}</h{level}></summary>"
        opened = "" if section.folded else " open"
        return f'<details class="section" id="{name}"{opened}>{heading}{legend}{inner}</details>'

    def block(self, block: Block) -> str:
        """One block."""
        if isinstance(block, Prose):
            return f"<p>{_text(block.text)}</p>"
        if isinstance(block, Command):
            copy = '<button type="button" data-tool="copy">Copy</button>' if self._tools else ""
            return f'<div class="command"><pre>{_text(block.text)}</pre>{copy}</div>'
        if isinstance(block, Facts):
            return f"<dl>{''.join(f'<dt>{_text(a)}</dt><dd>{_text(b)}</dd>' for a, b in block.pairs)}</dl>"
        if isinstance(block, Sheet):
            return self._sheet(block)
        if isinstance(block, Chart):
            return self._chart(block)
        return self._neighbourhoods(block)

    def _sheet(self, sheet: Sheet) -> str:
        rows = [[cell if isinstance(cell, Cell) else Cell(cell, cell) for cell in row] for row in sheet.rows]
        more = 0 if self._tools else max(0, len(rows) - _MOST_ROWS)
        rows = rows[: len(rows) - more]
        numeric = [
            any(isinstance(row[i].value, (int, float)) for row in rows)
            and all(row[i].value is None or isinstance(row[i].value, (int, float)) for row in rows)
            for i in range(len(sheet.columns))
        ]
        classes = [' class="number"' if number else "" for number in numeric]
        body = "\n".join(
            f"<tr{self._grouped(sheet, at)}>"
            + "".join(_cell(cell, i == 0, numeric[i]) for i, cell in enumerate(row))
            + "</tr>"
            for at, row in enumerate(rows)
        )
        if not self._tools:
            head = "".join(f"<th>{_text(column)}</th>" for column in sheet.columns)
            rest = f"<p>... and {more:,} rows more</p>" if more else ""
            return (
                f"<table><caption>{_text(sheet.title)}</caption><thead><tr>{head}</tr></thead>"
                f"<tbody>{body}</tbody></table>{rest}"
            )
        head = "".join(
            f'<th scope="col" aria-sort="none"{kind}><button type="button">{_text(column)}</button></th>'
            for column, kind in zip(sheet.columns, classes, strict=True)
        )
        title = _text(sheet.title)
        return (
            f'<figure data-title="{title}"><figcaption><b>{title}</b><span class="tools">'
            f'<button type="button" data-tool="csv">Save as CSV</button></span></figcaption>'
            f'<div class="scroll" tabindex="0" role="region" aria-label="{title}"><table>'
            f"<thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div></figure>"
        )

    def _grouped(self, sheet: Sheet, at: int) -> str:
        if not (sheet.groups and self._scope):
            return ""
        return f' data-scope="{self._scope}" data-group="{_text(sheet.groups[at])}"'

    def _chart(self, chart: Chart) -> str:
        name = self._name("chart")
        layout = {"height": _HEIGHT, **chart.layout}
        self.charts[name] = {"traces": list(chart.traces), "layout": layout}
        scope, legend = self._scope, ""
        if not scope:
            scope = name
            self.groups[name] = list(dict.fromkeys(trace["meta"]["group"] for trace in chart.traces))
            legend = self._legend(name) if len(self.groups[name]) > 1 else ""
        tools = '<span class="tools"><button type="button" data-tool="svg">Save as SVG</button></span>'
        return self._figure(name, scope, chart.title, tools, legend, chart.note, layout["height"])

    def _neighbourhoods(self, block: Neighbourhoods) -> str:
        graph = dict(block.graph)
        if not graph["centres"]:
            return f"<p>{_text(block.title)}: the graph has no edge to draw.</p>"
        name = self._name("chart")
        classes = sorted(set(graph["classes"] or []))
        graph["names"] = classes
        coloured = 1 < len(classes) <= _MOST_CLASSES
        self.groups[name] = [*_EDGES, *([f"class {each}" for each in classes] if coloured else ["nodes"])]
        first = next((at for at, why in graph["centres"] if _FIRST in why), graph["centres"][0][0])
        self.drawings[name] = {**graph, "directed": block.directed, "first": first}
        called = graph["labels"] or graph["nodes"] or range(len(graph["degrees"][0]))
        options = "".join(
            f'<option value="{at}">{_text(f"{called[at]}: {why}")}</option>' for at, why in graph["centres"]
        )
        any_node = (
            '<label>or any node: <input type="text" autocomplete="off"></label><button type="submit">Show</button>'
            if graph["whole"]
            else '<label>by name: <input type="text" autocomplete="off"></label><button type="submit">Show</button>'
        )
        choose = (
            f'<form class="choose"><label>Centre: <select><option value="">another</option>{options}</select></label>'
            f'{any_node}</form><p class="status" role="status"></p>'
        )
        hint = "Choose a centre, or click on a node. Edges between two nodes of the outer ring are left out." + (
            ""
            if graph["whole"]
            else f" The graph is large: the page holds the surroundings of {len(graph['centres'])} chosen centres, "
            "each with up to 60 nodes."
        )
        return self._figure(name, name, block.title, "", choose + self._legend(name), hint)

    def _figure(self, name: str, scope: str, title: str, tools: str, above: str, note: str, height: int = 0) -> str:
        below = f'<p class="note">{_text(note)}</p>' if note else ""
        return (
            f'<figure data-title="{_text(title)}"><figcaption><b>{_text(title)}</b>{tools}</figcaption>{above}'
            f'<div class="chart" id="{name}" data-scope="{scope}" role="img" aria-label="{_text(title)}" '
            f'style="min-height:{height}px"></div>'
            f"{below}</figure>"
        )

    def _legend(self, scope: str) -> str:
        groups = self.groups[scope]
        swatches = [_swatch(group, at) for at, group in enumerate(groups)]
        if tuple(groups[: len(_EDGES)]) == _EDGES:
            swatches = ["level", "gone", *swatches[: len(groups) - len(_EDGES)]]
        keys = "".join(
            f'<button type="button" class="key" aria-pressed="true" data-group="{_text(group)}">'
            f'<span class="swatch {swatch}"></span>{_text(group)}</button>'
            for group, swatch in zip(groups, swatches, strict=True)
        )
        hint = "" if self._hinted else '<span class="hint">Click hides or shows; a double click shows one alone.</span>'
        self._hinted = True
        return (
            f'<div class="legend" role="group" aria-label="What is shown" data-scope="{scope}">{keys}'
            f'<button type="button">All</button>{hint}</div>'
        )

    def _name(self, kind: str) -> str:
        self._count += 1
        return f"{kind}-{self._count}"


def _swatch(group: str, slot: int) -> str:
    if group in LEVELS:
        return "level"
    return f"s{slot % 10}"


def _cell(cell: Cell, first: bool, numeric: bool) -> str:
    value = "" if not numeric else f' data-value="{"" if cell.value is None else f"{cell.value:.10g}"}"'
    half = "" if cell.half_width is None else f' data-half="{cell.half_width:.10g}"'
    kind = ' class="number"' if numeric else ""
    if first:
        return f'<th scope="row"{kind}{value}{half}>{_text(cell.text)}</th>'
    return f"<td{kind}{value}{half}>{_text(cell.text)}</td>"


def _document(
    title: str, heading: str, lead: str, links: Sequence[tuple[str, str]], body: str, data: Mapping[str, Any]
) -> str:
    library, script = _library(), _asset("page.js")
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src {_hash(library)} {_hash(script)}",
            "style-src 'unsafe-inline'",
            "img-src data: blob:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    items = "".join(f'<li><a href="#{name}">{_text(text)}</a></li>' for name, text in links)
    said = json.dumps(data, allow_nan=False, separators=(",", ":"))
    said = said.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="graphsparse {_text(versions()["graphsparse"])}">
<title>{_text(title)} - graphsparse</title>
<style>
{_asset("page.css")}</style>
</head>
<body>
<header class="top"><h1>{heading}</h1><button type="button" id="theme" hidden>Colours</button></header>
<main>
<p class="lead">{_text(lead)}</p>
<noscript><p>Charts need JavaScript, which is off here; the tables hold the same figures.</p></noscript>
<nav aria-label="Parts of this page"><ul>{items}</ul></nav>
{body}
</main>
<footer>Made by graphsparse. The charts are drawn by plotly.js (MIT licence), which lies in this file.</footer>
<script type="application/json" id="page-data">{said}</script>
<script>{library}</script>
<script>{script}</script>
</body>
</html>
"""


def _rounded(value: Any) -> Any:
    """The same with numbers as exact as a chart can show them."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.7g}") if isinstance(value, float) else value


@cache
def _library() -> str:
    """The text of plotly.js, which the package plotly brings along."""
    found = importlib.util.find_spec("plotly")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError("the page draws its charts with plotly, which is not installed: pip install plotly")
    text = (Path(found.submodule_search_locations[0]) / "package_data" / "plotly.min.js").read_text(encoding="utf-8")
    return _inside_script(text)


@cache
def _asset(name: str) -> str:
    return _inside_script((_ASSETS / name).read_text(encoding="utf-8"))


def _inside_script(text: str) -> str:
    """The text as a browser will hash it: with its line ends; a text that would end its own element is refused."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "</script" in text.lower() or "<!--" in text:
        raise ValueError("this version of plotly.js cannot be put into a page: it holds an end of a script element")
    return text


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _text(text: object) -> str:
    """A text that stands in HTML, also between quotes; what no document may hold is shown as a replacement."""
    safe = "".join(c if c >= " " or c in "\n\t" else "�" for c in str(text))
    return html.escape(safe.encode("utf-8", "replace").decode())
