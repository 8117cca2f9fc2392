"""The page of ``graphsparse sparse train``: the training, what is kept of each tensor, and how it was made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graphsparse.report import Unit
from graphsparse.report.charts import bars, lines
from graphsparse.report.parts import Block, Cell, Prose, Run, Section, Sheet, Trend, figure
from graphsparse.report.runs import RUNS, how_made, name_of, read_record
from graphsparse.sparse.study import MASKS, MODEL, RESULT

_FILES = (
    (MODEL, "the weights, zeros outside the masks: safetensors.torch.load_file"),
    (MASKS, "the masks: graphsparse.params.load_masks"),
    (RESULT, "every figure"),
)


@RUNS.register("sparse train")
def sparse_run(folder: Path) -> Run | None:
    """The run of ``graphsparse sparse train`` in a folder; None where there is none."""
    record = read_record(folder / RESULT)
    if record.get("command") != "graphsparse sparse train":
        return None
    unit = Unit(record["metric"], record.get("maximize", True))
    trends = _trends(record, unit)
    share = f"{100 * record['weights_kept_matrices']:.2f} % of the matrices' weights"
    options = record["options"]
    lead = (
        f"On {options['data']}, {options['method']} keeps {share} ({100 * record['weights_kept']:.2f} % of all) "
        f"and reaches {unit.text(record['test'])} test {unit.metric}, {unit.text(record['val'])} on validation data."
    )
    return Run(
        name=name_of(folder),
        kind="sparse train",
        lead=lead,
        sections=[_training(record, trends, unit), _layers(record), how_made(record, folder, _FILES)],
        figures={
            unit.words: unit.cell(record["test"]),
            "validation": unit.cell(record["val"]),
            "weights of matrices kept, %": figure(record["weights_kept_matrices"], scale=100),
            "method": Cell(options["method"], options["method"]),
        },
        trends=trends,
    )


def _trends(record: Mapping[str, Any], unit: Unit) -> list[Trend]:
    history = record["history"]
    epochs = [each["epoch"] + 1 for each in history]
    words = unit.words.replace("test ", "validation ")
    return [Trend(record["options"]["method"], "epoch", words, epochs, [unit.scale * each["val"] for each in history])]


def _training(record: Mapping[str, Any], trends: list[Trend], unit: Unit) -> Section:
    method, history = record["options"]["method"], record["history"]
    loss = Trend(method, "epoch", "training loss", trends[0].x, [each["loss"] for each in history])
    blocks: list[Block] = [
        lines(f"{trends[0].y_label} by epoch", trends, note=f"The best epoch is {record['best_epoch'] + 1}."),
        lines("Training loss by epoch", [loss]),
        Prose(
            f"{record['steps']:,} steps. {100 * record['seen']:.1f} % of the selected weights were kept at some time. "
            "The best epoch is looked for among those that are as sparse as the end."
        ),
    ]
    return Section("The training", blocks, [method])


def _layers(record: Mapping[str, Any]) -> Section:
    """What is kept of each tensor."""
    kept, sizes = record["counts"], record["sizes"]
    shares = {name: 100 * kept[name] / sizes[name] for name in kept}
    rows: list[list[Cell | str]] = [
        [name, figure(sizes[name], digits=0), figure(kept[name], digits=0), figure(share)]
        for name, share in shares.items()
    ]
    chart = bars("Share of each tensor", list(shares), {"kept": list(shares.values())}, x_label="weights kept, %")
    return Section(
        "Weights kept of each tensor",
        [chart, Sheet("Weights kept", ["tensor", "weights", "kept", "kept, %"], rows)],
        ["kept"],
    )
