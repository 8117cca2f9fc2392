"""One sparse training on a data set by name: what ``graphsparse sparse train`` runs and writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import nn
from torch_geometric.data import Data

from graphsparse.atomic_write import atomic_write
from graphsparse.data import IMAGES, load, load_images
from graphsparse.errors import DataError
from graphsparse.fit import Bars, BaseTask, NodeTask, Task
from graphsparse.fit.measure import find_device
from graphsparse.keep_rule import Keep
from graphsparse.locking import only_one
from graphsparse.nn import make, make_cnn
from graphsparse.nn.make_net import seeded
from graphsparse.params import save_masks
from graphsparse.report import plain, provenance, say, table, write_json
from graphsparse.report.runs import PAGE, write_report
from graphsparse.sparse.training import train
from graphsparse.tensor_bytes import to_bytes

RESULT, MASKS, MODEL, CHECKPOINT = "metrics.json", "masks.safetensors", "model.safetensors", "run.safetensors"


@dataclass(frozen=True)
class SparseStudy:
    """A sparse training on a data set.

    Args:
        data: images or a graph of labelled nodes, by name.
        method, keep: as for :func:`graphsparse.sparse.train`.
        model: ``"mlp"`` (256 and 256 hidden units) or a CNN such as ``"resnet8"`` for images, a backbone for graphs;
            None: ``"mlp"`` for small grey images, ``"resnet8"`` for coloured ones, ``"gcn"``.
        hidden: units of a hidden layer, channels of a CNN's first stage; None: 256, of a CNN its own.
        epochs, lr: None: 200 and 0.01 for a graph, 20 and 0.002 for images.
        seed: of initial weights, masks and training.
        init: None or ``"scaled"``.
        device: where.
        tensorboard: a folder for TensorBoard's logs.
    """

    data: str = "digits"
    method: str = "rigl"
    keep: Keep = "0.05"
    model: str | None = None
    hidden: int | None = None
    epochs: int | None = None
    lr: float | None = None
    seed: int = 0
    init: str | None = None
    device: str = "cpu"
    tensorboard: Path | None = None

    def run(self, out: Path, console: Console) -> dict[str, Any]:
        """Train, write weights, masks, figures and a page, and print them; an interrupted run goes on.

        Raises:
            ValueError: for unknown names and what else :func:`graphsparse.sparse.train` refuses.
            DataError: if the data are missing, are no images or labelled nodes, or ``out`` holds another run.
            BusyError: if another process works in ``out``.
            OSError: if it cannot be written, which is told before anything is trained.
        """
        with only_one(out, files=(RESULT, MASKS, MODEL, CHECKPOINT, PAGE)):
            return self._run(out, console)

    def _run(self, out: Path, console: Console) -> dict[str, Any]:
        device = find_device(self.device)
        task, net, epochs, lr = self.problem()
        with Bars() as bars:
            result = train(
                net,
                task,
                self.method,
                keep=self.keep,
                epochs=epochs,
                lr=lr,
                seed=self.seed,
                init=self.init,
                device=device,
                checkpoint=out / CHECKPOINT,
                progress=bars.add(f"{self.method}, seed {self.seed}"),
                tensorboard=self.tensorboard,
            )
        save_masks(out / MASKS, result.masks)
        state = {name: value.detach().cpu().contiguous().clone() for name, value in result.module.state_dict().items()}
        with atomic_write(out / MODEL) as partial:
            partial.write_bytes(to_bytes(state, {"format": "pt"}))
        sizes = {name: mask.numel() for name, mask in result.masks.items()}
        figures = {**result.metrics, "maximize": task.metric.maximize, "counts": result.counts, "sizes": sizes}
        figures["history"] = result.fit.history
        found: dict[str, Any] = plain({**provenance("sparse train", self), **figures})
        write_json(out / RESULT, found)
        from graphsparse.sparse.page import sparse_run  # which reads what is written here

        page = write_report(out, sparse_run)
        shapes = {name: list(mask.shape) for name, mask in result.masks.items()}
        rows = [
            [name, "x".join(map(str, shapes[name])), f"{kept:,}", f"{100 * kept / result.masks[name].numel():.2f} %"]
            for name, kept in result.counts.items()
        ]
        console.print(table(f"{self.data}, {self.method}", ["tensor", "shape", "kept", "share"], rows))
        share = "weights kept {weights_kept:.2%}, of matrices {weights_kept_matrices:.2%}".format(**result.metrics)
        console.print(f"{task.metric.name} val {found['val']:.4f}, test {found['test']:.4f}; {share}", highlight=False)
        say(console, f"weights: {out / MODEL}  masks: {out / MASKS}  figures: {out / RESULT}  page: {page}")
        return found

    def problem(self) -> tuple[BaseTask, nn.Module, int, float]:
        """The task, the network with its initial weights, epochs and learning rate."""
        if IMAGES.spelled(self.data) is not None:
            images = load_images(self.data)
            task: BaseTask = Task(images.train, images.val, images.test)
            model = self.model or ("mlp" if images.in_channels == 1 else "resnet8")
            pixels = images.train[0][0].numel()
            net = self._image_net(model, pixels, images.in_channels, images.num_classes)
            return task, net, self.epochs or 20, self.lr or 0.002
        data = load(self.data)
        if not isinstance(data, Data) or getattr(data, "train_mask", None) is None:
            raise DataError(f"{self.data} is no set of images and no graph of labelled nodes, which is trained here")
        task = NodeTask(data)
        net = make(self.model or "gcn", data.num_features, task.num_classes, self.hidden or 256, seed=self.seed)
        return task, net, self.epochs or 200, self.lr or 0.01

    def _image_net(self, model: str, pixels: int, channels: int, classes: int) -> nn.Module:
        if model.lower() != "mlp":
            return make_cnn(model, width=self.hidden, in_channels=channels, num_classes=classes, seed=self.seed)
        width = self.hidden or 256
        with seeded(self.seed):
            first, second, last = nn.Linear(pixels, width), nn.Linear(width, width), nn.Linear(width, classes)
        return nn.Sequential(nn.Flatten(), first, nn.ReLU(), second, nn.ReLU(), last)
