"""The tables of nowcast.py and ceilings.py: results/nowcast.json, and those between the marks in docs/metanet.md.

python benchmarks/nowcast_page.py
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import provenance, read_rows, write_json
from nowcast import HERE, KEY, LEARNED, ROWS, SPEEDUP, STUDIES, TRIALS

from graphsparse.fit import PairedDifference, finite_or_none, mean_ci, paired_difference
from graphsparse.report import interval, markdown

PAGE = HERE.parent / "docs" / "metanet.md"
CEILING = "ceiling at "


def tabulate(arguments: argparse.Namespace) -> None:
    """Write the JSON and the page, and print the tables."""
    rows = read_rows(arguments.out, KEY)
    summaries, parts = [], []
    for study in STUDIES:
        mine = [row for row in rows if row["study"] == study]
        found = [*of_methods(study, mine), *of_ceiling(study, mine)]
        summaries += found
        texts = (methods_table(study, found), kinds_table(study, mine), masks_table(study, mine))
        parts += [text for text in texts if text]
    write_json(HERE / "results" / "nowcast.json", {**provenance("nowcast"), "summaries": summaries})
    begin, end = "<!-- nowcast tables -->", "<!-- end of nowcast tables -->"
    text = PAGE.read_text()
    before, rest = text.split(begin)
    PAGE.write_text(f"{before}{begin}\n\n" + "\n\n".join(parts) + f"\n\n{end}" + rest.split(end)[1])
    print("\n\n".join(parts))


def by_network(rows: list[dict[str, Any]], method: str, key: str = "test") -> dict[int, float]:
    """A method's mean over seeds for each test network."""
    found: dict[int, list[float]] = {}
    for row in rows:
        if row["method"] == method and row["net"] >= 0:
            found.setdefault(row["net"], []).append(row[key])
    return {net: sum(values) / len(values) for net, values in found.items()}


def of_methods(study: str, rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Means over networks, and paired differences to no jump and to the best control, in hindsight."""
    tests = {method: found for method in TRIALS if (found := by_network(rows, method))}
    controls = [method for method in tests if method not in LEARNED]
    best = max(controls, key=lambda method: _mean(tests[method]), default="")
    for method, found in tests.items():
        mine = [row for row in rows if row["method"] == method]
        entry = _entry(study, method, found, [row for row in mine if row["net"] >= 0])
        entry |= {"best_control": best, "cpu": _mean(by_network(rows, method, "cpu"))}
        entry["unexplained"] = next((row["unexplained"] for row in mine if row["net"] < 0), None)
        yield entry | _differences(found, tests, {"no jump", best} - {method})


def of_ceiling(study: str, rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """A jump to the mean of other seeds' weights, at the rate that is best by validation."""
    rates = sorted({row["method"] for row in rows if row["method"].startswith(CEILING)})
    if rates:
        best = max(rates, key=lambda method: _mean(by_network(rows, method, "val")))
        found, mine = by_network(rows, best), [row for row in rows if row["method"] == best]
        shares = [row["unexplained"]["0 -> 4"] for row in mine]
        entry = _entry(study, best, found, mine) | {"unexplained": {"0 -> 4": sum(shares) / len(shares)}}
        yield entry | _differences(found, {"no jump": by_network(rows, "no jump")}, {"no jump"})


def _entry(study: str, method: str, found: dict[int, float], rows: list[dict[str, Any]]) -> dict[str, Any]:
    mean, half = mean_ci(list(found.values()))
    taken = [jump[3] for row in rows for jump in row["jumps"]]
    return {
        "study": study,
        "method": method,
        "networks": len(found),
        "seeds": min(sum(row["net"] == net for row in rows) for net in found),
        "options": rows[0].get("options"),
        "rate": rows[0]["rate"] if "rate" in rows[0] else float(method.removeprefix(CEILING)),
        "test": mean,
        "ci95": finite_or_none(half),
        "taken": sum(taken) / len(taken) if taken else None,
    }


def _differences(found: dict[int, float], tests: dict[str, dict[int, float]], names: set[str]) -> dict[str, Any]:
    out = {}
    for name in sorted(names):
        both = sorted(set(found) & set(tests[name]))
        if both:
            out[f"minus_{name}"] = _plain(paired_difference([found[n] for n in both], [tests[name][n] for n in both]))
    return out


def _plain(difference: PairedDifference) -> dict[str, Any]:
    half = finite_or_none(difference.half_width)
    return {"mean": difference.mean, "ci95": half, "wins": difference.wins, "networks": difference.pairs}


def methods_table(study: str, found: list[dict[str, Any]]) -> str:
    """Markdown of one study's methods; empty without rows."""
    if not found:
        return ""
    best = found[0].get("best_control", "")
    others = [f"minus {name}" for name in dict.fromkeys(("no jump", best))]
    header = ["", "networks x seeds", "rate", "test, %", *others, "CPU, s", "jumps taken", "not foreseen"]
    lines = [
        [
            each["method"].split(" at ")[0],
            f"{each['networks']} x {each['seeds']}",
            f"{each['rate']:g}",
            interval(each["test"], each["ci95"], scale=100, digits=1),
            *(_signed(each.get("minus_" + name.removeprefix("minus "))) for name in others),
            f"{each['cpu']:.1f}" if "cpu" in each else "-",
            "-" if each["taken"] is None or each["method"] == "no jump" else f"{100 * each['taken']:.0f} %",
            _share(each["unexplained"]),
        ]
        for each in found
    ]
    return f"### {study}: one epoch after {SPEEDUP:g} times\n\n{markdown(header, lines)}"


def _share(shares: dict[str, float] | None) -> str:
    return "-" if shares is None else f"{100 * shares.get('8 -> 4', shares['0 -> 4']):.0f} %"


def kinds_table(study: str, rows: list[dict[str, Any]]) -> str:
    """Markdown of what is not foreseen of each kind of parameter; empty without rows."""
    found = {row["method"].split(": ")[1]: row["unexplained"] for row in rows if row["method"].startswith("kinds: ")}
    if not found:
        return ""
    names = list(next(iter(found.values())))
    lines = [[method, *(f"{100 * shares[name]:.0f} %" for name in names)] for method, shares in found.items()]
    header = ["not foreseen", *(name.replace("()", "linear") for name in names)]
    return f"### {study}: what is not foreseen, by kind of parameter\n\n{markdown(header, lines)}"


def masks_table(study: str, rows: list[dict[str, Any]]) -> str:
    """Markdown of the oracle of masks; one line per network, empty without rows."""
    lines = []
    for net in sorted({row["net"] for row in rows if row["method"].startswith("oracle")}):
        masks, seeds = (
            [row for row in rows if row["net"] == net and row["method"] == f"oracle: {kind} mask"]
            for kind in ("random", "uniform")
        )
        if masks and seeds:
            uniform = sum(row["test"] for row in seeds) / len(seeds)
            best, lucky = (max(each, key=lambda row: row["val"])["test"] for each in (masks, seeds))
            top = max(row["test"] for row in masks)
            figures = [f"{100 * value:.1f} ({100 * (value - uniform):+.1f})" for value in (best, lucky, top)]
            lines.append([str(net), f"{len(masks)}, {len(seeds)}", f"{100 * uniform:.1f}", *figures])
    header = ["network", "masks, seeds", "uniform, mean", "mask by validation", "seed by validation", "mask by test"]
    return f"### {study}: masks after one epoch, test %\n\n{markdown(header, lines)}" if lines else ""


def _mean(values: dict[int, float]) -> float:
    return sum(values.values()) / len(values)


def _signed(difference: dict[str, Any] | None) -> str:
    if difference is None:
        return "-"
    return "+" * (difference["mean"] >= 0) + interval(difference["mean"], difference["ci95"], scale=100, digits=1)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROWS, help="the rows")
    tabulate(parser.parse_args())


if __name__ == "__main__":
    main()
