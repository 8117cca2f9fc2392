"""The public door: names, laziness, and documents that must not drift from the code."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import graphsparse as gs

ROOT = Path(__file__).parent.parent


def test_every_public_name_can_be_imported():
    for name in gs.__all__:
        assert getattr(gs, name) is not None
    assert set(gs.__all__) <= set(dir(gs))
    with pytest.raises(AttributeError, match="no attribute 'sparsifi'"):
        gs.sparsifi  # noqa: B018


def test_import_stays_light():
    """Heavy parts are imported when they are used; torch_geometric is the only price of the import."""
    heavy = ["numba", "matplotlib", "sklearn", "ogb", "torch_pruning", "pyarrow", "dask", "typer"]
    code = (
        "import sys, torch_geometric; before = set(sys.modules); import graphsparse as gs; gs.find_ticket; gs.sparsify;"
        f"print([m for m in {heavy} if m in sys.modules and m not in before])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_floors_hold():
    """A file imports from its own folder and from lower floors only."""
    floors = {
        "cli": 4,
        "tickets": 3,
        "metanet": 2,
        "edges": 2,
        **dict.fromkeys(("params", "fit", "nn", "data", "report", "interop"), 1),
        **dict.fromkeys(("select", "radix", "parallel", "arcs", "loops", "products", "labels"), 0),
        **dict.fromkeys(("ogb_import", "whole", "errors"), 0),
    }
    for path in (ROOT / "graphsparse").rglob("*.py"):
        room = path.relative_to(ROOT / "graphsparse").parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        for imported in re.findall(r"(?:from|import) graphsparse\.(\w+)", path.read_text()):
            assert imported == room or floors[imported] < floors[room] or floors[room] == 0, f"{path}: {imported}"


def test_readme_prints_the_two_commands():
    commands = re.findall(r"^pip install -c constraints\.txt .*$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert commands == [
        "pip install -c constraints.txt . && graphsparse ticket",
        'pip install -c constraints.txt ".[test]" && python -m pytest',
    ]


def test_readme_examples_run(tmp_path, monkeypatch):
    """The Python blocks of the README, run in order as one program."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) >= 2
    exec(compile("\n".join(blocks), "README.md", "exec"), {"__name__": "readme"})
