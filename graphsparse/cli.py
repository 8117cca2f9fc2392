"""The command ``graphsparse``: find a ticket, sparsify a file, learn to prune networks."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

from graphsparse.cores import leave_room, usable_cores
from graphsparse.errors import GraphsparseError
from graphsparse.stopping import stoppable

Number = TypeVar("Number", int, float)

RESUMING = ("ticket", "meta", "bench")  # commands that go on where they were stopped; others write all or nothing
MENDABLE = (GraphsparseError, ValueError, TypeError, OSError, MemoryError)  # one sentence says what to do


class _Interrupted(BaseException):
    """Carries an interruption past typer, which would end the process without a word at a KeyboardInterrupt."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class _Commands(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise _Interrupted(getattr(error, "status", 130)) from error


_threads_are_ours = False  # whether the number of torch's threads may follow the size of the work; `main` looks

app = typer.Typer(
    cls=_Commands,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Make graphs, and the networks that learn on them, sparse.",
)
meta = typer.Typer(
    no_args_is_help=True, help="Networks as graphs: train a metanetwork that prunes networks, and use it."
)
app.add_typer(meta, name="meta")
bench = typer.Typer(no_args_is_help=True, help="Compare methods on real data, with intervals and paired differences.")
app.add_typer(bench, name="bench")


@app.command()
def ticket(
    dataset: Annotated[str, typer.Option(help="A name of graphsparse.data.names().")] = "digits-knn",
    model: Annotated[str, typer.Option(help="gcn, gin, gat, sage or transformer; molecules: gin or gcn.")] = "gcn",
    hidden: Annotated[int, typer.Option(min=1, help="Hidden units.")] = 64,
    method: Annotated[
        str, typer.Option(help="A name of graphsparse.tickets.finders(), or module:finder of your own.")
    ] = "teddy",
    edge_keep: Annotated[str | None, typer.Option(help="Fraction of edges to keep.", show_default="0.6")] = None,
    weight_keep: Annotated[str | None, typer.Option(help="Fraction of weights to keep.", show_default="0.1")] = None,
    weight_distribution: Annotated[
        str, typer.Option(help="How many weights each tensor keeps: global, uniform, er, erk, or module:function.")
    ] = "global",
    tolerance: Annotated[
        float | None,
        typer.Option(help="Instead of the keeps: take the sparsest level this close to dense on validation."),
    ] = None,
    distill: Annotated[float, typer.Option("--distill", "--lambda", help="Weight of the distillation term.")] = 1.0,
    protocol: Annotated[
        str | None,
        typer.Option(help="Of nodes: transductive or inductive.", show_default="transductive; of graphs: inductive"),
    ] = None,
    split: Annotated[int | None, typer.Option(help="Which split, where a data set has several.")] = None,
    guard: Annotated[str | None, typer.Option(help="cover or isolated: against nodes that lose all edges.")] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of each training run.")] = 200,
    lr: Annotated[float, typer.Option(help="Learning rate.")] = 0.01,
    weight_decay: Annotated[float, typer.Option(help="L2 penalty of the weights.")] = 5e-4,
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds.")] = 3,
    points: Annotated[int, typer.Option(min=1, help="Points of the plotted curve; the ticket is the last.")] = 4,
    out: Annotated[Path, typer.Option(help="Folder for the ticket, the plot and the figures.")] = Path("ticket"),
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the table.")] = False,
) -> None:
    """Find a graph lottery ticket: a sparse graph (or molecules) and a sparse network as good as the dense one."""
    from graphsparse.tickets.compare.study import Study

    if tolerance is None:
        edge_keep, weight_keep = edge_keep or "0.6", weight_keep or "0.1"
    study = Study(
        dataset=dataset,
        model=model,
        hidden=hidden,
        method=method,
        edge_keep=edge_keep,
        weight_keep=weight_keep,
        weight_distribution=weight_distribution,
        tolerance=tolerance,
        distill=distill,
        protocol=protocol,
        split=split,
        guard=guard,
        epochs=epochs,
        lr=lr,
        weight_decay=weight_decay,
        seeds=seeds,
        points=points,
        device=device,
    )
    study.run(out, Console(stderr=as_json), spare_threads=_threads_are_ours)
    if as_json:
        print((out / "metrics.json").read_text(), end="")


@app.command()
def sparsify(
    source: Annotated[Path, typer.Argument(metavar="IN", help="csv, tsv, npz, parquet, graphml or mtx file.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="Where to write; the same kind of file.")],
    method: Annotated[str, typer.Option(help="Edge score, such as teddy, random, dspar, jaccard.")] = "teddy",
    keep: Annotated[str | None, typer.Option(help="Fraction of edges to keep, in (0, 1].")] = None,
    per_node: Annotated[int | None, typer.Option(help="Instead of --keep: each node's best edges.")] = None,
    undirected: Annotated[
        bool | None, typer.Option("--undirected/--directed", help="How to read the edges.", show_default="look")
    ] = None,
    guard: Annotated[str | None, typer.Option(help="cover or isolated: against nodes that lose all edges.")] = None,
    forest: Annotated[bool, typer.Option(help="Keep a maximum spanning forest first.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of ties and of random scores.")] = 0,
    weight: Annotated[
        str | None,
        typer.Option(help="Column, attribute or array of weights.", show_default="weight or edge_weight"),
    ] = None,
    file_format: Annotated[
        str | None,
        typer.Option("--format", help="Kind of both files, or module:class of your own.", show_default="by suffix"),
    ] = None,
) -> None:
    """Keep the most important edges of a graph in a file; everything else in the file stays."""
    from graphsparse.edges.files import sparsify_file
    from graphsparse.errors import DataError

    rules = {"keep": keep, "per_node": per_node, "guard": guard, "forest": forest}
    chosen: dict[str, Any] = {"weight": weight, "file_format": file_format}
    try:
        report = sparsify_file(source, target, method, undirected=undirected, seed=seed, rules=rules, **chosen)
    except ModuleNotFoundError as error:  # of an extra that is not installed
        raise DataError(str(error)) from error
    Console().print(report, highlight=False, soft_wrap=True)


@meta.command()
def zoo(
    dataset: Annotated[str, typer.Option(help="digits, fashion-mnist or cifar10.")] = "digits",
    size: Annotated[
        int | None, typer.Option(min=1, help="Side of the resized images.", show_default="as they are")
    ] = None,
    train: Annotated[int | None, typer.Option(min=1, help="Number of training images.", show_default="all")] = None,
    val: Annotated[int, typer.Option(min=1, help="Number of validation images (digits: always 359).")] = 5000,
    arch: Annotated[
        list[str] | None, typer.Option(help="resnet8, vgg8 ...; several cycle.", show_default="resnet8")
    ] = None,
    width: Annotated[
        list[str] | None, typer.Option(help="Channels of the first stage; several cycle.", show_default="8")
    ] = None,
    epochs: Annotated[
        list[str] | None, typer.Option(help="Epochs of training; several cycle.", show_default="16")
    ] = None,
    lr: Annotated[float, typer.Option(help="Learning rate.")] = 0.1,
    speedup: Annotated[float | None, typer.Option(help="Prune mildly at the end, to this speed-up.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Number of networks.")] = 12,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first network; the others follow.")] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    out: Annotated[Path, typer.Option(help="Folder of the networks.")] = Path("zoo"),
) -> None:
    """Train data models: small networks that a metanetwork learns from. Those that are there are not trained again."""
    from graphsparse.metanet import Images
    from graphsparse.metanet.study import ZooStudy

    study = ZooStudy(
        images=Images(dataset, size, train, val),
        archs=_words(arch, "resnet8"),
        widths=_numbers("--width", width, "8", int),
        epochs=_numbers("--epochs", epochs, "16", int),
        lr=lr,
        speedup=speedup,
        count=count,
        seed=seed,
        jobs=jobs,
    )
    study.run(out, Console())


@meta.command("train")
def train_metanetwork(
    zoo: Annotated[Path, typer.Option(help="Folder of networks, from 'graphsparse meta zoo'.")] = Path("zoo"),
    objective: Annotated[str, typer.Option(help="repair, group-norm, group-lasso, or module:Class.")] = "repair",
    hidden: Annotated[int, typer.Option(min=2, help="Width of the metanetwork, even.")] = 32,
    layers: Annotated[int, typer.Option(min=1, help="Layers of the metanetwork.")] = 4,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs; after each one the held-out networks judge.")] = 16,
    steps: Annotated[int, typer.Option(min=1, help="Steps of an epoch.")] = 50,
    lr: Annotated[float, typer.Option(help="Learning rate.")] = 3e-3,
    seed: Annotated[int, typer.Option(min=0, help="Seed of initial weights and training.")] = 0,
    val_count: Annotated[int, typer.Option(min=1, help="Held-out networks: those of the highest seeds.")] = 2,
    out: Annotated[Path, typer.Option(help="File of the metanetwork.")] = Path("metanet.safetensors"),
) -> None:
    """Train a metanetwork over the networks of a zoo; an interrupted run goes on from its checkpoint."""
    from graphsparse.metanet.study import TrainStudy

    if out.suffix != ".safetensors":
        raise ValueError(f"the metanetwork is written as safetensors: --out must end in .safetensors, got {out}")
    TrainStudy(
        zoo=zoo,
        objective=objective,
        hidden=hidden,
        layers=layers,
        epochs=epochs,
        steps=steps,
        lr=lr,
        seed=seed,
        val_count=val_count,
    ).run(out, Console())


@meta.command("prune")
def prune_networks(
    zoo: Annotated[Path, typer.Option(help="Folder of networks, or of one network.")] = Path("zoo"),
    metanet: Annotated[str, typer.Option(help="A file, a pretrained metanetwork's name, or none.")] = "resnet-tiny",
    speedup: Annotated[
        list[str] | None, typer.Option(help="FLOPs before over after; several are fine.", show_default="2,4,6")
    ] = None,
    criterion: Annotated[
        list[str] | None,
        typer.Option(
            help="Baselines: group-l2, bn-scale, taylor, random, sparse-learning, module:function; each also as "
            "NAME+least-squares; "
            "differences are to the first.",
            show_default="group-l2,group-l2+least-squares,taylor",
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(min=0, help="Epochs of fine-tuning in all; 0: batch norms only.")] = 4,
    lr: Annotated[float, typer.Option(help="Learning rate of fine-tuning.")] = 0.05,
    seed: Annotated[int, typer.Option(min=0, help="Seed of random choices and fine-tuning.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder for the networks, the plot and the figures.")] = Path("pruned"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the table.")] = False,
) -> None:
    """Prune networks with a metanetwork and by plain criteria; what is done already is not done again."""
    from graphsparse.metanet.study import PruneStudy

    study = PruneStudy(
        zoo=zoo,
        metanet=metanet,
        speedups=_numbers("--speedup", speedup, "2,4,6", float),
        criteria=_words(criterion, "group-l2,group-l2+least-squares,taylor"),
        epochs=epochs,
        lr=lr,
        seed=seed,
    )
    study.run(out, Console(stderr=as_json))
    if as_json:
        print((out / "metrics.json").read_text(), end="")


@bench.command("tickets")
def bench_tickets(
    dataset: Annotated[
        list[str] | None, typer.Option(help="Data sets; without any, the whole comparison: about 8 hours of 2 cores.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Cora, small, at two levels: minutes on 2 cores.")] = False,
    model: Annotated[list[str] | None, typer.Option(help="Backbones.", show_default="gcn")] = None,
    hidden: Annotated[int | None, typer.Option(min=1, help="Hidden units.", show_default="512")] = None,
    protocol: Annotated[list[str] | None, typer.Option(help="Protocols.", show_default="the usual one")] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="Names of gs.tickets.finders(), NAME+cover for a guard, module:finder of your own.",
            show_default="the one-shot methods and controls",
        ),
    ] = None,
    level: Annotated[list[str] | None, typer.Option(help="Levels 1 to 20.", show_default="5,10,15,20")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Number of seeds.", show_default="5")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs of each run.", show_default="200")] = None,
    lr: Annotated[float | None, typer.Option(help="Adam's learning rate.", show_default="0.01")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Adam's l2 penalty.", show_default="0.0005")] = None,
    split: Annotated[
        str | None,
        typer.Option(help="'random': every seed draws a split of its own.", show_default="the data set's own"),
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, max=3, help="Trials of each method's hyper-parameters.", show_default="3")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes.", show_default="one for each core")] = usable_cores(),
    out: Annotated[Path, typer.Option(help="Folder for rows, tables, summary and plots.")] = Path("bench-tickets"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON instead of the tables.")] = False,
) -> None:
    """Compare ticket finders fairly: seeds, levels, trials chosen on validation data; an interrupted run resumes."""
    from graphsparse.errors import TicketError
    from graphsparse.tickets.compare import plan as plans
    from graphsparse.tickets.compare.bench import Bench

    figures: dict[str, Any] = {"hidden": hidden, "seeds": seeds, "epochs": epochs, "lr": lr}
    figures |= {"weight_decay": weight_decay, "split": split, "trials": trials}
    figures = {name: value for name, value in figures.items() if value is not None}
    lists = {"model": model, "protocol": protocol, "method": method, "level": level}
    beside = [f"--{name.replace('_', '-')}" for name in [*(name for name, words in lists.items() if words), *figures]]
    if quick and dataset:
        raise ValueError("--quick is a comparison of its own: give it, or --dataset")
    if beside and not dataset:
        raise ValueError(f"{beside[0]} goes with --dataset; --quick and the whole comparison are run as planned")
    if dataset:
        experiments = tuple(
            plans.Experiment(
                dataset=name,
                model=backbone,
                protocol=kind,
                methods=tuple(_words(method, ",".join(plans.ONE_SHOT))),
                levels=tuple(_numbers("--level", level, "5,10,15,20", int)),
                **figures,
            )
            for name in _words(dataset, "")
            for backbone in _words(model, "gcn")
            for kind in _words(protocol, "inductive" if name.startswith("ogbg-") else "transductive")
        )
    else:
        experiments = plans.quick() if quick else plans.full()
    failed: TicketError | None = None
    try:
        Bench(experiments, jobs).run(out, Console(stderr=as_json))
    except TicketError as error:  # some runs failed, of which the summary says nothing
        failed = error
    if as_json:
        print((out / "summary.json").read_text(), end="")
    if failed is not None:
        raise failed


_warned: set[str] = set()


def _words(given: list[str] | None, default: str) -> list[str]:
    """What an option that may be repeated, or hold commas, lists: each word once."""
    words = [word.strip() for part in given or [default] for word in part.split(",")]
    return list(dict.fromkeys(word for word in words if word))


def _numbers(option: str, given: list[str] | None, default: str, kind: type[Number]) -> list[Number]:
    try:
        return [kind(word) for word in _words(given, default)]
    except ValueError as error:
        whole = "whole " if kind is int else ""
        raise ValueError(f"{option} takes {whole}numbers, separated by commas; got {','.join(given or [])}") from error


def main() -> None:
    """Run the command; an error that a user can mend is one sentence, not a traceback."""
    global _threads_are_ours  # noqa: PLW0603
    _threads_are_ours = leave_room()
    sys.path.append(os.getcwd())  # where module:finder may lie; last, so that nothing there hides a library
    with warnings.catch_warnings(), stoppable(_say_stopped) as told:
        warnings.showwarning = _show_warning
        try:
            app()
        except _Interrupted as stopped:
            _say_stopped()
            sys.exit(stopped.status)
        except Exception as error:
            if told:  # a library made another error of the interruption
                _say_stopped()
                sys.exit(128 + told[0])
            if not isinstance(error, MENDABLE):
                raise
            _say("error", "red", _sentence(error))
            sys.exit(1)


def _sentence(error: BaseException) -> str:
    """What an error says; of the system's own errors the file first, and no number."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__


def _say(kind: str, colour: str, text: str) -> None:
    """One line on standard error, whatever brackets the text holds."""
    Console(stderr=True).print(Text.assemble((f"{kind}:", colour), f" {text}"), soft_wrap=True)


def _say_stopped() -> None:
    """The last words of a command that was told to end."""
    command = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    rest = "the same command resumes where it stopped" if command in RESUMING else "nothing half done is left"
    Console(stderr=True).print(f"interrupted; {rest}", highlight=False, soft_wrap=True)


def _show_warning(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
    """A warning as one line, said once: a command trains many models that are warned of alike."""
    if str(message) not in _warned:
        _warned.add(str(message))
        _say("warning", "yellow", str(message))


if __name__ == "__main__":
    main()
