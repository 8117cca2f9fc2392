"""The picture of the architecture, made from the package's own imports: ``python docs/architecture.py``.

It reads every import with `ast` and draws the rooms as layers: a room stands above all that it imports. The picture is
an SVG of plain boxes; `docs/architecture.md` says the same in a table.
"""

from __future__ import annotations

import ast
import functools
from pathlib import Path

ROOT = Path(__file__).parents[1] / "graphsparse"
PAGE = Path(__file__).with_name("architecture.md")
PICTURE = Path(__file__).with_name("architecture.svg")
MARK = "<!-- made by: python docs/architecture.py -->"
GROUND = "ground"
Arrows = set[tuple[str, str]]


def rooms() -> list[str]:
    """The folders of the package, and the single files beside them, which are the ground."""
    return [GROUND, *sorted(path.name for path in ROOT.iterdir() if (path / "__init__.py").exists())]


@functools.cache
def arrows() -> Arrows:
    """Which room imports from which, as pairs."""
    found: Arrows = set()
    for path in sorted(ROOT.rglob("*.py")):
        home = _room(path.relative_to(ROOT).parts)
        if path.parent == ROOT and path.name in ("__init__.py", "__main__.py"):  # doors, which open onto every floor
            continue
        for name in _imported(path):
            other = _room((*name.split(".")[1:], ""))
            if other != home:
                found.add((home, other))
    return found


def _room(parts: tuple[str, ...]) -> str:
    return parts[0] if len(parts) > 1 and (ROOT / parts[0]).is_dir() else GROUND


def _imported(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.append(node.module)
        elif isinstance(node, ast.Import):
            found.extend(alias.name for alias in node.names)
    return [name for name in found if name.split(".")[0] == "graphsparse"]


def floors(graph: Arrows, names: list[str]) -> list[list[str]]:
    """The rooms from the top down: each lies one floor above the highest room that it imports."""
    heights: dict[str, int] = {}

    def height(room: str) -> int:
        if room not in heights:
            heights[room] = 1 + max((height(other) for home, other in graph if home == room), default=-1)
        return heights[room]

    top = max(height(name) for name in names)
    return [[name for name in names if heights[name] == level] for level in range(top, -1, -1)]


def svg(levels: list[list[str]], graph: Arrows) -> str:
    """The picture: boxes on floors, and a line for each pair of rooms."""
    width, step, high = 760, 110, 52
    centre = {
        name: (width * (2 * i + 1) / (2 * len(level)), 30 + step * floor + high / 2)
        for floor, level in enumerate(levels)
        for i, name in enumerate(level)
    }
    lines = []
    for home, other in sorted(pair for pair in graph if GROUND not in pair):  # all stand on the ground
        (x, y), (u, v) = centre[home], centre[other]
        lines.append(
            f'<path d="M{x:.0f},{y + high / 2:.0f} C{x:.0f},{y + step:.0f} {u:.0f},{v - step:.0f} '
            f'{u:.0f},{v - high / 2:.0f}"><title>{home} imports {other}</title></path>'
        )
    boxes = []
    for name, (x, y) in centre.items():
        half = width / 2 - 20 if name == GROUND else 54
        boxes.append(
            f'<rect x="{x - half:.0f}" y="{y - high / 2:.0f}" width="{2 * half:.0f}" height="{high}" rx="8"/>'
            f'<text x="{x:.0f}" y="{y + 5:.0f}">{name}</text>'
        )
    height = 60 + step * (len(levels) - 1) + high
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            'font-family="sans-serif" font-size="15" text-anchor="middle" role="img" '
            'aria-label="The rooms of graphsparse as layers; each imports only from those below it">',
            '<rect width="100%" height="100%" fill="#ffffff"/>',
            f'<g fill="none" stroke="#8899aa" stroke-opacity="0.55">{"".join(lines)}</g>',
            f'<g fill="#e8f0f8" stroke="#33557f">{"".join(box.split("<text")[0] for box in boxes)}</g>',
            f'<g fill="#223344">{"".join("<text" + "<text".join(box.split("<text")[1:]) for box in boxes)}</g>',
            "</svg>",
            "",
        ]
    )


def picture() -> str:
    """The picture of the present imports."""
    graph = arrows()
    return svg(floors(graph, rooms()), graph)


def drawn(page: str) -> str:
    """The page with the present table below its mark."""
    graph = arrows()
    lines = ["| room | imports from |", "|---|---|"]
    for level in floors(graph, rooms()):
        for name in level:
            others = sorted(other for home, other in graph if home == name)
            lines.append(f"| {name} | {', '.join(others) or '-'} |")
    return page.partition(MARK)[0] + MARK + "\n\n" + "\n".join(lines) + "\n"


def main() -> None:
    """Write picture and table."""
    PICTURE.write_text(picture())
    PAGE.write_text(drawn(PAGE.read_text()))


if __name__ == "__main__":
    main()
