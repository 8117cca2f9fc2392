"""Single weights with and without least squares: unstructured and N:M, before and after an epoch of fine-tuning.

    python benchmarks/kept_weights.py run --study digits    # resumes where it stopped
    python benchmarks/kept_weights.py table                 # results/kept_weights.json and docs/metanet.md

The networks are the test networks of benchmarks/recipe.py, which trains them if they are missing in ``--work``. The
same weights go in both rows; fine-tuning is the recipe that wins for least squares there.
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path
from typing import Any

from common import PAGES, append_row, into_page, provenance, read_rows, write_json
from metanet import networks_of, train_network
from recipe import OURS

HERE = Path(__file__).parent
ROWS = HERE / "results" / "kept_weights.jsonl"
HOWS: dict[str, dict[str, str]] = {
    "80 %": {"sparsity": "0.8"},
    "90 %": {"sparsity": "0.9"},
    "95 %": {"sparsity": "0.95"},
    "2:4": {"pattern": "2:4"},
    "1:4": {"pattern": "1:4"},
}
BUDGETS = {"none": 0, "short": 1}
KEY = ("study", "net", "how", "reconstruct", "budget")


def run(arguments: argparse.Namespace) -> None:
    """Prune every network in every way."""
    import torch

    from graphsparse.metanet import FineTune, prune_weights

    torch.set_num_threads(1)
    study, group = OURS[arguments.study]
    work, recipes = arguments.work / study.name, study.recipes()[group][: arguments.networks]
    for recipe in recipes:
        if not (work / group / recipe.name / "network.json").exists():
            print(train_network(study, work / group, recipe), flush=True)
    nets, task = networks_of(study, work, group, recipes), study.images.task()
    done = {tuple(row[k] for k in KEY) for row in read_rows(arguments.out, KEY)}
    commit = provenance("kept_weights")["commit"]
    for (number, net), how in itertools.product(enumerate(nets), HOWS):
        for reconstruct, budget in itertools.product((False, True), arguments.budgets.split(",")):
            base = {"study": arguments.study, "net": number, "how": how, "reconstruct": reconstruct, "budget": budget}
            if tuple(base[k] for k in KEY) in done:
                continue
            start = time.process_time()
            tune = FineTune(BUDGETS[budget], 0.02, batch_size=32)
            result = prune_weights(net, None, task, **HOWS[how], reconstruct=reconstruct, fine_tune=tune)
            row = base | {"test": result.accuracy, "val": result.val, "dense": result.accuracy_before}
            row |= {"weights_kept": result.weights_kept, "cpu_seconds": time.process_time() - start}
            append_row(arguments.out, row | {"commit": commit})
            print(*base.values(), f"{row['test']:.4f}", flush=True)


def tabulate(arguments: argparse.Namespace) -> None:
    """Write the JSON and the Markdown table of all rows so far, and print it."""
    rows = read_rows(arguments.out, KEY)
    parts, summaries = [], []
    for study in dict.fromkeys(row["study"] for row in rows):
        text, found = page([row for row in rows if row["study"] == study], study)
        parts.append(text)
        summaries += found
    write_json(HERE / "results" / "kept_weights.json", {**provenance("kept_weights"), "summaries": summaries})
    into_page(PAGES / "metanet.md", "weights", "\n\n".join(parts))


def page(rows: list[dict[str, Any]], study: str) -> tuple[str, list[dict[str, Any]]]:
    """A table of one study, and its figures."""
    from graphsparse.fit import finite_or_none, mean_ci, paired_difference
    from graphsparse.report import interval, markdown

    columns = [(how, budget) for budget in BUDGETS for how in HOWS if any(r["budget"] == budget for r in rows)]
    found: dict[bool, dict[tuple[str, str], dict[int, float]]] = {False: {}, True: {}}
    for row in rows:
        found[row["reconstruct"]].setdefault((row["how"], row["budget"]), {})[row["net"]] = row["test"]
    table, summaries = [], []
    for reconstruct, name in ((False, "largest magnitudes"), (True, "and least squares")):
        cells = [mean_ci(list(found[reconstruct].get(c, {}).values()) or [float("nan")]) for c in columns]
        table.append([name, *(interval(mean, half, scale=100, digits=1) for mean, half in cells)])
    signed = []
    for how, budget in columns:
        ours, theirs = found[True].get((how, budget), {}), found[False].get((how, budget), {})
        nets = sorted(set(ours) & set(theirs))
        if not nets:
            signed.append("-")
            continue
        paired = paired_difference([ours[net] for net in nets], [theirs[net] for net in nets])
        text = interval(paired.mean, finite_or_none(paired.half_width), scale=100, digits=1)
        signed.append(("+" if paired.mean >= 0 else "") + text)
        entry = {"study": study, "how": how, "budget": budget, "networks": paired.pairs, "minus": paired.mean}
        summaries.append(entry | {"ci95": finite_or_none(paired.half_width), "wins": paired.wins})
    table.append(["difference", *signed])
    count = len({row["net"] for row in rows})
    header = [f"{study}, {count} networks: test accuracy, %", *(f"{budget} {how}" for how, budget in columns)]
    return markdown(header, table), summaries


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("run", "table"))
    parser.add_argument("--study", choices=tuple(OURS), default="digits")
    parser.add_argument("--networks", type=int, default=6, help="test networks, up to 6")
    parser.add_argument("--budgets", default="none,short", help="comma separated")
    parser.add_argument("--work", type=Path, default=Path("metanet-study"), help="where dense networks lie")
    parser.add_argument("--out", type=Path, default=ROWS)
    arguments = parser.parse_args()
    {"run": run, "table": tabulate}[arguments.action](arguments)


if __name__ == "__main__":
    main()
