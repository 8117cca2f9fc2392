"""What the documents say is so: code runs and prints what is shown, tables are those of results, nothing is missing."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
from sybil import Document, Example, Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser, SkipParser

import graphsparse as gs
from graphsparse.metanet.graph import RULES
from graphsparse.params.recipes import METHODS
from graphsparse.registry import Registry
from graphsparse.report.runs import RUNS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
BENCHMARKS = ROOT / "benchmarks"
PAGES = [ROOT / "README.md", *sorted(page for page in DOCS.rglob("*.md") if "```python\n" in page.read_text())]
NEEDS = re.compile(r"<!-- needs: (.*?) -->")  # data sets that a page reads
NUMBER = re.compile(r"-?\d[\d,]*\.?\d*")
TABLES: list[Registry] = [
    gs.edges.SCORES,
    gs.graphs.FORMATS,
    gs.graphs.KINDS,
    gs.tickets.FINDERS,
    gs.metanet.CRITERIA,
    gs.metanet.OBJECTIVES,
    gs.params.DISTRIBUTIONS,
    gs.params.GRAINS,
    gs.params.METHODS,
    gs.params.PENALTIES,
    gs.params.RULES,
    gs.params.SCORES,
    gs.fit.METRICS,
    gs.nn.BACKBONES,
    gs.nn.CNNS,
    gs.data.DATASETS,
    gs.data.IMAGES,
    RULES,
    RUNS,
]


class Printed:
    """A page's Python blocks run one after another; a ``text`` block is what the block before it prints.

    Words are exact. Numbers with a decimal point may differ by 5 %, or by 0.03: training rounds otherwise elsewhere.
    """

    def __init__(self) -> None:
        self.last = ""

    def parsers(self) -> list[object]:
        """For `Sybil`."""
        run = PythonEvaluator()

        def keep_output(example: Example) -> str | None:
            caught = io.StringIO()
            with contextlib.redirect_stdout(caught):
                found = run(example)
            self.last = caught.getvalue()
            return found

        return [CodeBlockParser("python", keep_output), CodeBlockParser("text", self.compare), SkipParser()]

    def compare(self, example: Example) -> str | None:
        """None if the block is what was printed, else what differs."""
        shown, printed = str(example.parsed).split(), self.last.split()
        same = len(shown) == len(printed) and all(map(_alike, shown, printed))
        return None if same else f"the page shows\n{example.parsed}\nand the code prints\n{self.last}"


def _alike(shown: str, printed: str) -> bool:
    if NUMBER.sub("#", shown) != NUMBER.sub("#", printed):
        return False
    pairs = zip(NUMBER.findall(shown), NUMBER.findall(printed), strict=True)
    return all(_near(a.replace(",", ""), b.replace(",", "")) for a, b in pairs)


def _near(shown: str, printed: str) -> bool:
    if "." not in shown:
        return shown == printed
    return abs(float(shown) - float(printed)) <= max(0.03, 0.05 * abs(float(shown)))


@pytest.fixture
def own_tables() -> Iterator[None]:
    """What a page registers is forgotten after it."""
    before = [set(table) for table in TABLES]
    yield
    for table, names in zip(TABLES, before, strict=True):
        for name in set(table) - names:
            del table[name]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_code_of_a_page_runs_and_prints_what_the_page_shows(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_tables: None
) -> None:
    for name in ", ".join(NEEDS.findall(page.read_text())).split(", "):
        if name:
            _load_or_skip(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    document: Document = Sybil(parsers=Printed().parsers()).parse(page)  # type: ignore[arg-type]
    document.namespace["__name__"] = "page"
    ran = 0
    for example in document.examples():
        example.evaluate()
        ran += 1
    assert ran


def _load_or_skip(name: str) -> None:
    try:
        gs.data.load_images(name) if name in gs.data.IMAGES else gs.data.load(name)
    except gs.DataError as missing:
        pytest.skip(f"the page reads {name}, which is not here: {missing}")


def test_a_block_that_prints_something_else_is_told(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nprint('accuracy 0.80 of 1,000')\n```\n\n```text\naccuracy 0.81 of 1,000\n```\n")
    assert [example.evaluate() for example in Sybil(parsers=Printed().parsers()).parse(page).examples()]  # type: ignore[arg-type]
    for wrong in ("accuracy 0.90 of 1,000", "accuracy 0.81 of 1,001", "precision 0.81 of 1,000"):
        page.write_text(f"```python\nprint('accuracy 0.80 of 1,000')\n```\n\n```text\n{wrong}\n```\n")
        with pytest.raises(Exception, match="the code prints"):
            [example.evaluate() for example in Sybil(parsers=Printed().parsers()).parse(page).examples()]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("edges.md", gs.edges.SCORES.names),
        ("tickets.md", lambda: [name for name in gs.tickets.finders() if name not in gs.edges.SCORES]),
        ("weights.md", gs.params.DISTRIBUTIONS.names),
        ("weights.md", lambda: _subclasses("params", gs.params.Pattern)),
        ("sparse.md", gs.params.methods),
        ("networks.md", gs.metanet.CRITERIA.names),
        ("networks.md", gs.metanet.OBJECTIVES.names),
    ],
    ids=["scores", "finders", "distributions", "patterns", "sparse", "criteria", "objectives"],
)
def test_every_method_has_an_entry_with_its_formula_cost_and_limits(page: str, names: object) -> None:
    entries = _entries((DOCS / "methods" / page).read_text())
    for name in names():  # type: ignore[operator]
        assert name in entries, f"docs/methods/{page} has no heading '### `{name}`'"
        for word in ("Cost:", "When not:"):
            assert word in entries[name], f"the entry of {name} in docs/methods/{page} does not say '{word}'"


def _entries(text: str) -> dict[str, str]:
    """The section under each heading ``### `name```."""
    parts = re.split(r"^#{2,3} .*$", text, flags=re.MULTILINE)[1:]
    heads = re.findall(r"^#{2,3} (.*)$", text, flags=re.MULTILINE)
    return {name: part for head, part in zip(heads, parts, strict=True) for name in re.findall(r"`([^`]+)`", head)}


def _subclasses(room: str, base: type) -> list[str]:
    public = getattr(gs, room)
    found = [name for name in public.__all__ if isinstance(getattr(public, name), type)]
    return [name for name in found if issubclass(getattr(public, name), base) and getattr(public, name) is not base]


@pytest.mark.parametrize(
    "names",
    [gs.data.names, gs.data.image_names, gs.nn.BACKBONES.names, gs.fit.METRICS.names],
    ids=["data sets", "images", "backbones", "metrics"],
)
def test_what_data_and_models_there_are_is_said(names: object) -> None:
    text = (DOCS / "methods" / "data.md").read_text()
    assert [name for name in names() if f"`{name}`" not in text] == []  # type: ignore[operator]


def test_every_family_of_networks_is_said() -> None:
    text = (DOCS / "methods" / "networks.md").read_text()
    assert [name for name in gs.nn.CNNS if f"`{name}`" not in text] == []


def test_every_public_module_has_a_page_in_the_reference() -> None:
    """That every name of such a module is on it, the strict build checks (docs/conf.py)."""
    modules = [name for name in gs.__all__ if isinstance(getattr(gs, name), types.ModuleType)]
    for name in modules:
        assert f".. automodule:: graphsparse.{name}" in (DOCS / "api" / f"{name}.md").read_text(), name


def test_the_picture_of_the_architecture_is_that_of_the_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS))
    architecture = importlib.import_module("architecture")
    page = architecture.PAGE.read_text()
    assert page == architecture.drawn(page), "python docs/architecture.py"
    assert architecture.PICTURE.read_text() == architecture.picture(), "python docs/architecture.py"


def test_the_tables_of_tickets_are_those_of_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    study = importlib.import_module("tickets")
    rows = study.TICKETS.read_runs(study.OUT / study.ROWS)
    assert len(rows) > 500
    _, mark, shown = study.PAGE.read_text().partition(study.MARK)
    assert mark
    assert shown.strip() == study.tables(rows, study.compared(rows)).strip(), "python benchmarks/tickets.py table"


def test_the_tables_of_sparse_training_are_those_of_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    known = set(METHODS.names())
    study = importlib.import_module("sparse")
    found = {kind.command: study.compared(kind) for kind in (study.SPARSE, study.TICKETS)}
    for name in set(METHODS.names()) - known:  # variants of the study's own, which other tests need not know
        del METHODS[name]
    _, mark, shown = study.PAGE.read_text().partition(study.MARK)
    assert mark
    assert shown.strip() == study.tables(found).strip(), "python benchmarks/sparse.py table"


def test_every_row_says_what_it_rests_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    study = importlib.import_module("tickets")
    for row in study.TICKETS.read_runs(study.OUT / study.ROWS):
        assert len(row["commit"]) == 40
        assert row["test"] >= 0
