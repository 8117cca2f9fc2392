"""Data models: a zoo of small trained networks, each from a recipe and a seed, kept on disk without pickle."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load as from_bytes
from safetensors.torch import save_file
from torch import nn

from graphsparse.atomic_write import atomic_write
from graphsparse.data.images import ImageSet, crop_flip, load_images
from graphsparse.errors import DataError
from graphsparse.fit import Task
from graphsparse.fit.measure import find_device
from graphsparse.hashing import named_hash
from graphsparse.metanet.channels import KeptChannels, cut
from graphsparse.metanet.fine_tuning import FineTune
from graphsparse.metanet.pruning import PruneResult, prune
from graphsparse.nn.cnn import make_cnn
from graphsparse.untrusted import read_bytes, read_json_object, reading
from graphsparse.workers import in_processes

_P = TypeVar("_P")

FORMAT = "graphsparse.metanet.network/2"
_FORMAT_1 = "graphsparse.metanet.network/1"  # without a checksum of the header
WEIGHTS, HEADER = "weights.safetensors", "network.json"
_LARGEST_INPUT = 1 << 23  # numbers in an example that a header asks for: the file holds its shape only
_MOST_CUT = 25  # weights before mild pruning over those after: a fifth of the channels on either side stays


@dataclass(frozen=True)
class Images:
    """Which images a network learns: the arguments of `graphsparse.data.load_images`.

    Args:
        name: "digits", "fashion-mnist" or "cifar10".
        size: side of the resized images, None as they are.
        train, val: numbers of images.
        seed: of the choice of images.
        batch_size: images per step.
        augment: shift and mirror training images at random (`graphsparse.data.crop_flip`).
    """

    name: str = "digits"
    size: int | None = None
    train: int | None = None
    val: int = 5000
    seed: int = 0
    batch_size: int = 128
    augment: bool = False

    def load(self) -> ImageSet:
        """The images."""
        return load_images(self.name, size=self.size, train=self.train, val=self.val, seed=self.seed)

    def task(self) -> Task:
        """Cross-entropy and accuracy on the images."""
        images = self.load()
        augment = crop_flip if self.augment else None
        return Task(images.train, images.val, images.test, batch_size=self.batch_size, augment=augment)


@dataclass(frozen=True)
class Recipe:
    """How one data model is made.

    Args:
        arch: a name of `graphsparse.nn.make_cnn`, such as "resnet8" or "vgg8".
        width: channels of the first stage.
        seed: of initial weights and training.
        epochs, lr: of training with SGD and a cosine schedule.
        speedup: mild pruning (uniform group-l2, then half as many epochs of fine-tuning) at the end, None for none.

    Raises:
        ValueError: ``epochs``, ``lr`` or ``speedup`` is out of range.
    """

    arch: str = "resnet8"
    width: int = 8
    seed: int = 0
    epochs: int = 8
    lr: float = 0.1
    speedup: float | None = None

    def __post_init__(self) -> None:
        if self.epochs < 1 or not self.lr > 0:
            raise ValueError(f"a data model needs epochs >= 1 and lr > 0, got {self.epochs} and {self.lr}")
        if self.speedup is not None and not self.speedup >= 1:
            raise ValueError(f"the speed-up of mild pruning must be at least 1, got {self.speedup}")

    def check(self) -> None:
        """Raise ValueError unless there is such a network; none is made."""
        with torch.device("meta"):
            make_cnn(self.arch, width=self.width, seed=0)

    @property
    def all_epochs(self) -> int:
        """Epochs of training, those after mild pruning among them."""
        return self.epochs + (0 if self.speedup is None else max(1, self.epochs // 2))

    @property
    def name(self) -> str:
        """What its folder is called."""
        pruned = "" if self.speedup is None else f"-x{self.speedup:g}"
        return f"{self.arch}-w{self.width}-e{self.epochs}-s{self.seed}{pruned}"


@dataclass(frozen=True)
class ZooNetwork:
    """A trained network of a zoo.

    Args:
        module: the network, in evaluation mode.
        recipe, images: how it was made.
        figures: ``val`` and ``test`` metric, and others.
    """

    module: nn.Module = field(repr=False)
    recipe: Recipe
    images: Images
    figures: dict[str, Any]


def make_network(
    recipe: Recipe,
    images: Images,
    task: Task | None = None,
    *,
    device: str | torch.device = "cpu",
    tensorboard: Path | None = None,
) -> tuple[nn.Module, KeptChannels, dict[str, Any]]:
    """Train one network; returns it, the channels that mild pruning kept, and its figures.

    Args:
        recipe, images: how.
        task: that of the images, where it is at hand.
        device: where it is trained, and stays.
        tensorboard: a folder for TensorBoard's logs; None writes none.

    Raises:
        ValueError: the recipe names no architecture, or an option is out of range.
    """
    task = images.task() if task is None else task
    x = task.parts["train"][0]
    classes = 1 + max(int(task.parts[part][1].max()) for part in ("train", "val"))
    net = make_cnn(recipe.arch, width=recipe.width, in_channels=x.shape[1], num_classes=classes, seed=recipe.seed)
    net.to(find_device(device))
    found = FineTune(recipe.epochs, recipe.lr).run(net, task, seed=recipe.seed, tensorboard=tensorboard)
    assert found is not None
    figures: dict[str, Any] = {"val": found.val, "test": found.test}
    if recipe.speedup is None:
        return net, {}, figures
    tune = FineTune(recipe.all_epochs - recipe.epochs, recipe.lr / 2)
    logs = None if tensorboard is None else tensorboard / "pruned"
    result = prune(net, None, task, speedup=recipe.speedup, fine_tune=tune, seed=recipe.seed, tensorboard=logs)
    return result.module, result.kept, {"val": result.val, "test": result.accuracy, "speedup": result.speedup}


def train_zoo(
    folder: str | Path,
    recipes: Iterable[Recipe],
    images: Images,
    *,
    jobs: int = 1,
    report: Callable[[int, int, str], None] | None = None,
    device: str | torch.device = "cpu",
    tensorboard: str | Path | None = None,
) -> list[ZooNetwork]:
    """Train and save the networks that are not in the folder yet, and return all of these recipes, in order.

    A network depends on its recipe and images alone (and, in the last bits, on the device and the number of threads).

    Args:
        folder: one folder below it for each network: ``network.json`` and ``weights.safetensors``.
        recipes: what to train.
        images: what it is trained on.
        jobs: processes, each with one thread when there are several.
        report: called with (done, all, what happened) after each network.
        device: where they are trained; ``"auto"`` takes a GPU if there is one.
        tensorboard: a folder for TensorBoard's logs, one below it for each network; None writes none.

    Raises:
        DataError: a network in the folder is damaged, or was trained on other images or otherwise.
        ValueError: a recipe is not possible.
    """
    folder, recipes = Path(folder), list(recipes)
    there: dict[Recipe, ZooNetwork] = {}
    for recipe in recipes:
        if (folder / recipe.name / HEADER).exists():
            there[recipe] = _expected(folder, recipe, images)
    todo = [recipe for recipe in dict.fromkeys(recipes) if recipe not in there]
    if len({recipe.name for recipe in [*there, *todo]}) < len({*there, *todo}):
        raise ValueError("two recipes differ only in what their folders' names do not say: train them into two folders")
    for recipe in todo:
        recipe.check()  # what cannot be made is found before hours of training
    done, total = len(there), len(there) + len(todo)
    say = report or (lambda number, total, text: None)
    say(done, total, f"{done} networks were there")
    logs = None if tensorboard is None else Path(tensorboard)
    train = partial(_train_one, folder, images=images, device=find_device(device), tensorboard=logs)
    with closing(_trained(train, todo, images, jobs)) as trained:  # closed, its processes end
        for recipe, figures in trained:
            done += 1
            say(done, total, f"{recipe.name}: validation {figures['val']:.4f}")
    there |= {recipe: _expected(folder, recipe, images) for recipe in todo}
    return [there[recipe] for recipe in recipes]


def _expected(folder: Path, recipe: Recipe, images: Images) -> ZooNetwork:
    found = load_network(folder / recipe.name, images)
    if found.recipe != recipe:
        raise DataError(f"{folder / recipe.name} was made by {found.recipe}, not by {recipe}: choose another folder")
    return found


def _trained(
    train: Callable[..., dict[str, Any]], todo: list[Recipe], images: Images, jobs: int
) -> Generator[tuple[Recipe, dict[str, Any]], None, None]:
    if jobs <= 1 or len(todo) <= 1:
        task = images.task() if todo else None
        for recipe in todo:
            yield recipe, train(recipe, task=task)
        return
    with closing(in_processes(train, todo, jobs)) as ends:
        for end in ends:
            yield end.item, end.result()


def _train_one(
    folder: Path,
    recipe: Recipe,
    images: Images,
    device: torch.device,
    tensorboard: Path | None,
    task: Task | None = None,
) -> dict[str, Any]:
    task = images.task() if task is None else task
    logs = None if tensorboard is None else tensorboard / recipe.name
    module, kept, figures = make_network(recipe, images, task, device=device, tensorboard=logs)
    module.cpu()
    header = {"recipe": dataclasses.asdict(recipe), "images": dataclasses.asdict(images), "figures": figures}
    inputs = (torch.zeros_like(task.parts["train"][0][:1]),)
    save_network(folder / recipe.name, module, kept, inputs, header)
    return figures


def load_zoo(folder: str | Path) -> list[ZooNetwork]:
    """All networks of a folder, by name.

    Raises:
        DataError: there are none, or one is damaged.
    """
    found = sorted(path.parent for path in Path(folder).glob(f"*/{HEADER}"))
    if not found:
        raise DataError(f"there are no networks in {folder}: make some with 'graphsparse meta zoo'")
    return [load_network(path) for path in found]


def load_network(folder: str | Path, images: Images | None = None) -> ZooNetwork:
    """One network of a zoo.

    Raises:
        DataError: it is missing or damaged, or was trained on other images than ``images``.
    """
    header = read_header(folder)
    with reading(folder, DataError, "a network of a zoo"):
        recipe, learned = _plain(Recipe, header["recipe"]), _plain(Images, header["images"])
        figures = {**header["figures"], **{part: float(header["figures"][part]) for part in ("val", "test")}}
        if images is not None and images != learned:
            raise DataError(f"{folder} was trained on {learned}, not on {images}: choose another folder")
        shape = {"in_channels": header["inputs"][0]["shape"][1], "num_classes": header["outputs"]}
        make = partial(make_cnn, recipe.arch, width=recipe.width, seed=recipe.seed, **shape)
        _check_size(recipe, make, _weights(folder, header))
        return ZooNetwork(restore(folder, make()).eval(), recipe, learned, figures)


def _plain(kind: type[_P], values: dict[str, Any]) -> _P:
    """A recipe of plain values, each of the type that its option has."""
    found = kind(**values)
    for option in dataclasses.fields(found):  # type: ignore[arg-type]
        value, usual = getattr(found, option.name), option.default
        optional = usual is None and (value is None or type(value) in (int, float))
        if not (optional or type(value) is type(usual) or (type(usual) is float and type(value) is int)):
            raise ValueError(f"{option.name} is no {type(usual).__name__} but {value!r:.50}")
    return found


def _check_size(recipe: Recipe, make: Callable[[], nn.Module], state: dict[str, torch.Tensor]) -> None:
    """Raise ValueError unless the weights that are there can be those of the network that a recipe asks for.

    What is asked for is made without memory (device "meta") first, so that a header cannot have at will.
    """
    depth = max([0, *map(int, re.findall(r"\d+", recipe.arch))])
    if depth > len(state):
        raise ValueError(f"{recipe.arch} has more layers than there are weights")
    with torch.device("meta"):
        asked = make().state_dict()
    there, size = (sum(tensor.numel() for tensor in tensors.values()) for tensors in (state, asked))
    if asked.keys() != state.keys() or size > there * (1 if recipe.speedup is None else _MOST_CUT):
        raise ValueError(
            f"its weights ({there} numbers) are not those of {recipe.arch} of width {recipe.width} ({size})"
        )


def save_network(
    folder: str | Path,
    module: nn.Module,
    kept: KeptChannels,
    inputs: tuple[Any, ...],
    header: dict[str, Any] | None = None,
) -> None:
    """Write a (pruned) network: the kept channels as JSON and the weights as safetensors; nothing that runs code.

    Args:
        folder: made if it is not there.
        module: the network.
        kept: layer -> indices of the output channels that stayed, as `prune` gives it.
        inputs: tensors that the network can be called with; only their shapes and types are written.
        header: more plain values for the JSON.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        training = module.training
        outputs = module.eval()(*inputs)
        module.train(training)
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in module.state_dict().items()}
    described = {
        "format": FORMAT,
        **(header or {}),
        "kept": kept,
        "inputs": [{"shape": list(t.shape), "dtype": str(t.dtype).removeprefix("torch.")} for t in inputs],
        "outputs": outputs.shape[-1] if isinstance(outputs, torch.Tensor) else None,
        "sha256": named_hash("", state),
    }
    described["checksum"] = _checksum(described)
    with atomic_write(folder / WEIGHTS) as unfinished:
        save_file(state, unfinished)
    with atomic_write(folder / HEADER) as unfinished:
        unfinished.write_text(json.dumps(described, indent=1, allow_nan=False) + "\n")


def _checksum(header: Mapping[str, Any]) -> str:
    """SHA-256 of all that a header says but this."""
    rest = {key: value for key, value in header.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, allow_nan=False).encode()).hexdigest()


def save_pruned(folder: str | Path, result: PruneResult, header: dict[str, Any] | None = None) -> None:
    """Write the network of a `PruneResult` and its figures, and more plain values; `restore` brings it back."""
    described = {"figures": result.figures(), "widths": result.widths, **(header or {})}
    save_network(folder, result.module, result.kept, result.example_inputs, described)


def restore(folder: str | Path, net: nn.Module) -> nn.Module:
    """Turn a network of the original class and widths into the saved one, in place: cut, then load the weights.

    Raises:
        DataError: a file is missing or damaged.
        ShrinkError: ``net`` is not of the class and widths that the saved network had before it was pruned.

    Example:
        >>> import tempfile
        >>> from graphsparse.metanet import FineTune, prune
        >>> make = lambda: nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2))
        >>> x, y = torch.randn(64, 4), torch.arange(64) % 2
        >>> result = prune(make(), None, Task((x, y), (x, y), (x, y)), speedup=4, fine_tune=FineTune(epochs=0))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_pruned(folder, result)
        ...     again = restore(folder, make())
        >>> torch.equal(again(x), result.module(x))
        True
    """
    header = read_header(folder)
    state = _weights(folder, header)
    with reading(folder, DataError, "an undamaged network"):
        kept = {name: [_channel(channel) for channel in channels] for name, channels in header["kept"].items()}
        inputs = tuple(_example(part) for part in header["inputs"]) if kept else ()
    if kept:
        cut(net, kept, inputs)
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        raise DataError(f"the weights in {folder} do not fit this {type(net).__name__}: {error}") from error
    return net


def _weights(folder: str | Path, header: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    path = Path(folder) / WEIGHTS
    with reading(path, DataError, "an undamaged file of weights"):
        state: dict[str, torch.Tensor] = from_bytes(read_bytes(path, folder=folder))
        if header.get("sha256", named_hash("", state)) != named_hash("", state):
            raise DataError(f"{folder} is damaged: the weights are not those that {HEADER} was written for")
    return state


def _channel(value: Any) -> int:
    if type(value) is not int:
        raise ValueError(f"a channel is a whole number, not {value!r:.50}")
    return value


def _example(part: Mapping[str, Any]) -> torch.Tensor:
    shape, dtype = part["shape"], getattr(torch, part["dtype"], None)
    if not isinstance(shape, list) or not isinstance(dtype, torch.dtype) or any(type(n) is not int for n in shape):
        raise ValueError(f"an input is described by a list of sizes and a type, not by {part!r:.80}")
    if math.prod(shape) > _LARGEST_INPUT or any(size < 0 for size in shape):
        raise ValueError(f"an example of shape {shape!r:.80} has a negative size or more than {_LARGEST_INPUT} numbers")
    return torch.zeros(shape, dtype=dtype)


def read_header(folder: str | Path) -> dict[str, Any]:
    """The JSON of a saved network.

    Raises:
        DataError: it is missing or damaged.
    """
    path = Path(folder) / HEADER
    with reading(path, DataError, "an undamaged header of a network"):
        header = read_json_object(read_bytes(path, folder=folder))
        if header.get("format") not in (FORMAT, _FORMAT_1):
            raise DataError(f"{path} is no network of this version")
        if header["format"] == FORMAT and header["checksum"] != _checksum(header):
            raise DataError(f"{path} is damaged: its checksum differs")
    return header
