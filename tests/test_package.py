"""The public door: names, laziness, and documents that must not drift from the code."""

import ast
import importlib
import inspect
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


def test_files_are_sparsified_without_pyg(tmp_path):
    """PyG takes longer to import than all the rest, and neither a file nor an array needs it."""
    (tmp_path / "a.csv").write_text("src,dst\n0,1\n1,2\n2,0\n2,3\n")
    code = (
        "import sys, numpy, graphsparse as gs; gs.sparsify('a.csv', keep=0.5, undirected=True);"
        "gs.sparsify(numpy.array([[0, 1, 2], [1, 2, 0]]), keep=1); gs.sparsify_files; gs.edges.sample;"
        "print([m for m in ('torch_geometric', 'pandas') if m in sys.modules]);"
        "print(gs.edges.SparsifyEdges('random', keep=1), 'torch_geometric' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.stdout.splitlines() == ["[]", "SparsifyEdges(random, keep=1) True"], done.stderr


FLOORS = {
    "cli": 5,
    "tickets": 4,
    **dict.fromkeys(("edges", "metanet", "sparse"), 3),
    "compare": 2,
    **dict.fromkeys(("params", "fit", "nn", "data", "report", "graphs"), 1),
}  # every other module is the ground


def imports_of(path: Path, root: Path = ROOT) -> list[tuple[str, list[str]]]:
    """(module, names) of each import of graphsparse in a file, wherever it stands in it; ``names`` may be modules."""
    package = path.relative_to(root).with_suffix("").parts
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(alias.name, []) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level]) if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found.append((module, [alias.name for alias in node.names]))
    return [(module, names) for module, names in found if module.split(".")[0] == "graphsparse"]


def allowed(room: str, other: str) -> bool:
    return room == other or FLOORS.get(other, 0) < FLOORS.get(room, 0) or not {room, other} & {*FLOORS}


def breaches(path: Path, root: Path = ROOT) -> list[str]:
    """Imports that go up or sideways, and private names or modules of another room."""
    package = path.relative_to(root / "graphsparse").with_suffix("").parts
    room = package[0]
    found = []
    for module, names in imports_of(path, root):
        parts = module.split(".")[1:]
        rooms = [parts[0]] if parts else [name for name in names if name not in ("__version__",)]
        found += [f"{path.name}: {room} may not import {other}" for other in rooms if not allowed(room, other)]
        private = [name for name in [*parts, *names] if name.startswith("_") and not name.startswith("__")]
        if private and parts[:1] != [room]:
            found.append(f"{path.name}: {', '.join(private)} of {module} is private")
    return found


def test_floors_hold():
    """A file imports from its own folder and from lower floors only, and no private name of another room."""
    doors = [ROOT / "graphsparse" / name for name in ("__init__.py", "__main__.py")]
    files = [path for path in (ROOT / "graphsparse").rglob("*.py") if path not in doors]
    assert [breach for path in files for breach in breaches(path)] == []


@pytest.mark.parametrize(
    "line",
    [
        "from graphsparse import tickets",
        "import graphsparse.tickets.find",
        "from graphsparse.edges._hidden import x",
        "from graphsparse.keep_rule import _private",
        "def f():\n    from graphsparse.tickets import Ticket",
        "from ..metanet import prune",
    ],
)
def test_the_floors_test_sees(line, tmp_path):
    """The imports that a search for text missed: of the package, relative, inside functions, private."""
    file = tmp_path / "graphsparse" / "params" / "x.py"
    file.parent.mkdir(parents=True)
    file.write_text(line)
    assert len(breaches(file, tmp_path)) == 1 + ("edges._" in line)


def test_no_module_is_hidden_by_a_function_of_its_name():
    for path in (ROOT / "graphsparse").rglob("*.py"):
        if path.stem.startswith("__"):
            continue
        parts = path.relative_to(ROOT).with_suffix("").parts
        for depth in range(1, len(parts)):
            home = importlib.import_module(".".join(parts[:depth]))
            found = getattr(home, parts[-1], None)
            assert not inspect.isfunction(found), f"{'.'.join(parts)} is hidden by {home.__name__}.{parts[-1]}"


def test_dir_shows_the_public_names_only():
    rooms = (gs.graphs, gs.metanet, gs.edges, gs.params, gs.tickets, gs.data, gs.fit, gs.nn, gs.report, gs.sparse)
    for home in (gs, *rooms, gs.compare):
        shown = [name for name in dir(home) if not name.startswith("__")]
        assert sorted(shown) == sorted(home.__all__), home.__name__


def test_readme_prints_the_two_commands():
    commands = re.findall(r"^pip install -c constraints\.txt .*$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert commands == [
        "pip install -c constraints.txt . && graphsparse ticket",
        'pip install -c constraints.txt ".[test]" && python -m pytest',
    ]
