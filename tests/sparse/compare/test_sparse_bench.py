"""The comparison of sparse training: its controls, that it resumes, and what is concluded."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from graphsparse import cli
from graphsparse.compare import ROWS, Bench, verdicts_of
from graphsparse.params import methods
from graphsparse.report.runs import read_run
from graphsparse.sparse.compare.comparison import SPARSE
from graphsparse.sparse.compare.plan import Experiment, full, method_name, quick, share_of, with_controls

SMALL = Experiment(hidden=8, methods=("set", "nm", "random-search"), keeps=("0.2", "1:4"), seeds=2, epochs=1, trials=2)


def rows_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / ROWS).read_text().splitlines()]


def timeless(out: Path) -> dict[tuple[Any, ...], tuple[float, ...]]:
    return {(r["seed"], r["method"], r["keep"], str(r["trial"])): (r["val"], r["test"]) for r in rows_of(out)}


def test_it_makes_its_runs_and_goes_on_where_it_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Bench([SMALL], 1).run(tmp_path / "whole", Console(quiet=True))
    rows = rows_of(tmp_path / "whole")
    assert len(rows) == 2 * (1 + 2 + 2 + 2)
    for row in rows:
        assert {name: row[name] for name in SMALL.setting} == SMALL.setting
        kept = {0: 1.0, "0.2": 0.2, "1:4": 0.25}[row["keep"]]
        assert row["weights_kept_matrices"] == pytest.approx(kept, abs=2e-3)  # one weight of few
    assert not list((tmp_path / "whole" / "checkpoints").glob("*"))
    draws = [r["test"] for r in rows if (r["method"], r["seed"]) == ("random-search", 0)]
    assert len(set(draws)) == 2, "two draws are two masks"
    (verdict,) = found
    assert [method["method"] for method in verdict["methods"]] == ["set", "nm", "random-search"]
    assert json.loads((tmp_path / "whole" / "summary.json").read_text())["settings"] == json.loads(json.dumps(found))

    from graphsparse.sparse.compare import comparison

    calls: list[Any] = []
    train = comparison.train

    def killed(*args: Any, **options: Any) -> Any:
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return train(*args, **options)

    monkeypatch.setattr(comparison, "train", killed)
    with pytest.raises(KeyboardInterrupt):
        Bench([SMALL], 1).run(tmp_path / "killed", Console(quiet=True))
    Bench([SMALL], 1).run(tmp_path / "killed", Console(quiet=True))
    assert len(calls) == 3 + 12 - 2
    assert timeless(tmp_path / "killed") == timeless(tmp_path / "whole")


def row(
    method: str, seed: int, test: float, keep: str | int = "0.1", val: float | None = None, **trial: Any
) -> dict[str, Any]:
    about = {"dataset": "digits", "model": "mlp", "hidden": 8, "epochs": 1, "lr": 0.1, "weight_decay": 0.0}
    about |= {"optimizer": "sgd", "init": None, "seed": seed, "method": method, "keep": keep, "trial": trial}
    return {**about, "metric": "accuracy", "maximize": True, "val": val or test, "test": test, "seconds": 1.0}


def test_what_is_concluded_by_hand() -> None:
    seeds = range(3)
    rows = [row("dense", s, 0.9 + 0.01 * s, keep=0) for s in seeds]
    rows += [row("random-erk", s, 0.7 + 0.02 * s, "0.0625") for s in seeds]
    rows += [row("rigl", s, 0.8 + 0.01 * s, "0.0625") for s in seeds]
    rows += [row("rigl+random", s, 0.6, "0.0625") for s in seeds]
    rows += [row("nm", s, 0.75, "1:16") for s in seeds]
    for s, d in ((s, d) for s in seeds for d in (1, 2)):
        rows.append(row("random-search", s, 0.5 + 0.1 * d, "0.0625", val=0.5 + 0.1 * ((d + s) % 2), draw=d))
    (verdict,) = verdicts_of(SPARSE, rows)
    cells = {method["method"]: method["levels"][0] for method in verdict["methods"]}
    assert cells["rigl"]["minus_random-erk"]["mean"] == pytest.approx(0.09)
    assert cells["rigl"]["minus_random"]["mean"] == pytest.approx(0.21)
    assert cells["nm"]["minus_random-erk"]["mean"] == pytest.approx(0.03), "1:16 is a share of 0.0625"
    assert "minus_random" not in cells["nm"]
    assert cells["random-search"]["test"] == pytest.approx((0.6 + 0.7 + 0.6) / 3), "the best on val of each seed"
    assert "‡" in SPARSE.pages([verdict])


def test_controls_and_names() -> None:
    assert with_controls(["RigL", "random_er", "nm"]) == (
        "random-erk", "random-search", "rigl", "rigl+random", "random-er", "nm", "nm+random",
    )  # fmt: skip
    everything = Experiment().methods
    assert set(methods()) - {"blocks"} <= set(everything)
    assert {"random-search", "gmp+random", "nm-ste+random"} <= set(everything)
    assert Experiment("Digits", model=None).setting["model"] == "mlp"
    assert Experiment("cora").setting == Experiment("Cora", "GCN").setting
    assert share_of("2:8") == Fraction(1, 4)
    assert quick()
    assert full()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": ("rigle",)}, "did you mean 'rigl'"),
        ({"methods": ("rigl+chance",)}, "what follows rigl. must be"),
        ({"methods": ("random-erk+random",)}, "random as it is"),
        ({"methods": ("nm",), "keeps": ("0.1",)}, "nm takes none of the keeps"),
        ({"keeps": ("1.5",)}, "keep"),
        ({"keeps": ()}, "needs keeps"),
        ({"optimizer": "sdg"}, "optimizer must be"),
        ({"init": "scale"}, "init must be"),
        ({"lr": 0.0}, "lr must be above 0"),
        ({"seeds": 0}, "at least 1"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Experiment(**options)
    with pytest.raises(ValueError, match="did you mean 'rigl'"):
        method_name("rigel")


def test_the_command_its_page_and_what_it_would_cost(tmp_path: Path) -> None:
    words = ["bench", "sparse", "--data", "digits", "--hidden", "8", "--method", "magnitude", "--keep", "0.2", "--json"]
    words += ["--seeds", "3", "--epochs", "1", "--trials", "1", "--jobs", "1", "--optimizer", "sgd", "--init", "scaled"]
    said = CliRunner().invoke(cli.app, [*words, "--dry-run", "--out", str(tmp_path)])
    assert json.loads(said.stdout)["runs"] == 3 * 5
    assert not list(tmp_path.iterdir())
    done = CliRunner().invoke(cli.app, [*words, "--out", str(tmp_path)])
    assert done.exit_code == 0, (done.output, done.exception)
    names = [method["method"] for method in json.loads(done.stdout)["settings"][0]["methods"]]
    assert names == ["random-erk", "random-search", "magnitude", "magnitude+random"]
    run = read_run(tmp_path)
    assert run.kind == "bench sparse"
    assert "magnitude has the best mean test accuracy" in run.lead
    assert (tmp_path / "digits-mlp8-sgd-scaled.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "report.html").exists()
    (tmp_path / "summary.json").unlink()  # a comparison that is not through
    assert read_run(tmp_path).lead == run.lead
    beside = CliRunner().invoke(cli.app, ["bench", "sparse", "--quick", "--keep", "0.1"])
    assert "--keep goes with --data" in str(beside.exception)
