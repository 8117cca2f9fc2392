"""One door to every set of images: a name goes in, training, validation and test tensors come out."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphsparse.atomic_write import atomic_write
from graphsparse.cache_folder import cache_root
from graphsparse.data.catalogue import takes_a_folder
from graphsparse.data.folders import announce, data_root, locate
from graphsparse.errors import DataError
from graphsparse.plain_npz import read_npz
from graphsparse.registry import Registry

Part = tuple[Tensor, Tensor]
Array = np.ndarray[Any, Any]
Root = str | os.PathLike[str] | None


@dataclass(frozen=True)
class ImageSet:
    """Images with their classes.

    Attributes:
        name: as in :func:`image_names`.
        train, val, test: each a pair of float32 ``[N, C, H, W]`` and int64 ``[N]``, as ``gs.Task`` takes them.
        num_classes: how many classes there are.
        classes: their names.
        note: what to call the data beside a figure, such as ``"CIFAR-10 (JPEG copy)"``.
    """

    name: str
    train: Part
    val: Part
    test: Part
    num_classes: int
    classes: tuple[str, ...]
    note: str

    @property
    def in_channels(self) -> int:
        """Channels of an image: 1 if grey, 3 if coloured."""
        return int(self.train[0].shape[1])


@dataclass(frozen=True)
class RawImages:
    """Images as files give them; what a function of one's own returns.

    Attributes:
        x: pixels ``[N, C, H, W]`` from 0 to ``white``.
        y: classes, whole numbers ``[N]``.
        is_test: bool ``[N]``, which images are the test part.
        classes: names of the classes.
        note: what to call the data beside a figure.
        white: the value of a white pixel.
        val: how many validation images there are by custom; None leaves it to the caller of :func:`load_images`.
    """

    x: Array
    y: Array
    is_test: Array
    classes: tuple[str, ...]
    note: str
    white: int = 255
    val: int | None = None

    def __post_init__(self) -> None:
        count = len(self.x)
        if (
            self.x.ndim != 4
            or self.x.dtype.kind not in "uif"
            or self.y.shape != (count,)
            or self.y.dtype.kind not in "iu"
        ):
            raise DataError(
                f"{self.note}: pixels {self.x.shape} and classes {self.y.shape} are no images and their classes."
            )
        if self.is_test.shape != (count,) or self.is_test.dtype != bool or not self.is_test.any() or self.is_test.all():
            raise DataError(f"{self.note}: is_test must mark some of {count:,} images, and not all.")
        _check_classes(self.y, self.classes, self.note)


def _as_reader(name: str, entry: Any) -> Callable[[Root], RawImages]:
    if not callable(entry):
        raise TypeError(f"{name!r} is no set of images: it is a {type(entry).__name__}, not a function")

    def read(root: Root) -> RawImages:
        found = entry(root) if takes_a_folder(entry) else entry()
        if not isinstance(found, RawImages):
            raise TypeError(
                f"{name!r} returned a {type(found).__name__}; a set of images is a graphsparse.data.RawImages"
            )
        return found

    read.__doc__ = entry.__doc__  # what lists of names say of it
    return read


IMAGES: Registry[Callable[[Root], RawImages]] = Registry("set of images", check=_as_reader)


def image_names() -> list[str]:
    """Return the names that :func:`load_images` knows.

    Example:
        >>> image_names()
        ['cifar10', 'digits', 'fashion-mnist']
    """
    return IMAGES.names()


def load_images(
    name: str,
    *,
    size: int | None = None,
    train: int | None = None,
    val: int = 5000,
    root: Root = None,
    seed: int = 0,
) -> ImageSet:
    """Load images by the name of their data set.

    The published test images are the test part. Validation images, and then training images, are drawn from the
    others, each class in proportion; neither ``train`` nor ``size`` changes which images validate. Pixels are scaled to
    [0, 1], then every channel is shifted and scaled to mean 0 and standard deviation 1 over the training part.

    Args:
        name: one of :func:`image_names`, where case does not matter and ``_`` is ``-``; or ``"module:function"``, which
            returns :class:`RawImages`.
        size: height and width in pixels, by averaging over areas; None leaves the images as they are.
        train: how many training images; None takes all that are left. Fewer images are a subset of more.
        val: how many validation images. The digits have no published split: always a fifth of them (359) is the test
            part, another fifth the validation part, whatever ``val`` is.
        root: the data folder; by default the one that ``GRAPHSPARSE_DATA`` names. It is only read. What is not
            there is looked for in, and downloaded into, the cache (``GRAPHSPARSE_CACHE``).
        seed: of the draw, at least 0.

    Raises:
        TypeError: the name is no text.
        ValueError: there is no such data set, or a number is out of range.
        DataError: a file is missing (and cannot be downloaded), damaged, or not what it should be.

    Example:
        >>> images = load_images("digits", train=500)
        >>> images.train[0].shape, images.val[0].shape, images.in_channels, images.num_classes
        (torch.Size([500, 1, 8, 8]), torch.Size([359, 1, 8, 8]), 1, 10)
    """
    key = IMAGES.key(name)
    if size is not None and size < 1:
        raise ValueError(f"size is a number of pixels, at least 1, got {size}")
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")
    raw = IMAGES.find(key)(root)
    pool = np.flatnonzero(~raw.is_test)
    val = val if raw.val is None else raw.val
    train = len(pool) - val if train is None else train
    if min(train, val) < 1 or train + val > len(pool):
        raise ValueError(
            f"{key} has {len(pool):,} images to train and validate with, at least one each; "
            f"train={train:,} and val={val:,} do not fit"
        )
    drawn = pool[_interleaved(raw.y[pool], seed)]
    chosen = {"train": drawn[val : val + train], "val": drawn[:val], "test": np.flatnonzero(raw.is_test)}
    pixels = {part: _scaled(raw.x[rows], raw.white, size) for part, rows in chosen.items()}
    _normalise(pixels)
    parts = {part: (pixels[part], torch.from_numpy(raw.y[rows].astype(np.int64))) for part, rows in chosen.items()}
    return ImageSet(key, **parts, num_classes=len(raw.classes), classes=raw.classes, note=raw.note)


def crop_flip(images: Tensor, padding: int = 4) -> Tensor:
    """Shift each image by up to ``padding`` pixels (zeros come in) and mirror every other one, at random.

    The usual augmentation of CIFAR; random numbers come from torch's generator, and are the same on every device.

    Args:
        images: ``[N, C, H, W]``.
        padding: in pixels.

    Source: "Deep Residual Learning for Image Recognition" (He et al., CVPR 2016), section 4.2.

    Example:
        >>> crop_flip(torch.ones(2, 3, 32, 32)).shape
        torch.Size([2, 3, 32, 32])
    """
    count, _, height, width = images.shape
    draws = torch.randint(2 * padding + 1, (2, count))
    mirrored = torch.randint(2, (count, 1)).bool()
    rows = draws[0, :, None] + torch.arange(height)
    columns = torch.arange(width).expand(count, width)
    columns = draws[1, :, None] + torch.where(mirrored, columns.flip(1), columns)
    padded = torch.nn.functional.pad(images, (padding,) * 4)
    at = (torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :])
    return padded.movedim(1, 3)[tuple(index.to(images.device) for index in at)].movedim(3, 1).contiguous()


def _interleaved(y: Array, seed: int) -> Array:
    """Return all positions in a random order of which every first part holds the classes in proportion."""
    order = np.random.default_rng(seed).permutation(len(y))
    labels = y[order]
    progress = np.empty(len(y))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        progress[members] = (np.arange(len(members)) + 0.5) / len(members)
    return order[np.argsort(progress, kind="stable")]


def _scaled(pixels: Array, white: int, size: int | None) -> Tensor:
    """Return float32 in [0, 1], resampled to ``size``."""
    x = torch.from_numpy(pixels.astype(np.float32)).div_(white)
    return x if size is None else torch.nn.functional.adaptive_avg_pool2d(x, size)


def _normalise(pixels: dict[str, Tensor]) -> None:
    """Shift and scale each channel of every part, in place, as the training part asks for."""
    for channel in range(pixels["train"].shape[1]):
        # numpy, since torch's sums depend on the number of threads, and with them the fingerprint of the data.
        values = pixels["train"][:, channel].numpy()
        mean, spread = float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
        for x in pixels.values():
            x[:, channel].sub_(mean).div_(spread or 1.0)


@IMAGES.register("digits")
def _read_digits(root: Root) -> RawImages:
    """Read the 1,797 digits that scikit-learn brings along; a fifth, always the same, is the test part."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    x, y = np.asarray(digits.images)[:, None], np.asarray(digits.target)
    is_test = np.zeros(len(y), dtype=bool)
    is_test[_interleaved(y, 0)[: len(y) // 5]] = True
    return RawImages(x, y, is_test, tuple("0123456789"), "scikit-learn digits", white=16, val=int(is_test.sum()))


_FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
_FASHION_FILES = tuple(f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1"))
_FASHION_URL = "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion"
_FASHION_FOLDERS = ("fashion-mnist", "FashionMNIST/raw")  # of the data folder
_FASHION_DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # where Debian's package dataset-fashion-mnist puts it


@IMAGES.register("fashion-mnist")
def _read_fashion(root: Root) -> RawImages:
    """Read Fashion-MNIST (Xiao et al. 2017) from its four idx files."""
    x, y, tx, ty = (_read_idx(path) for path in _fashion_paths(root))
    for images, labels in ((x, y), (tx, ty)):
        if images.ndim != 3 or labels.shape != images.shape[:1] or x.shape[1:] != images.shape[1:]:
            raise DataError(f"Fashion-MNIST: {images.shape} pixels and {labels.shape} labels do not fit together.")
    is_test = np.arange(len(y) + len(ty)) >= len(y)
    labels = _check_classes(np.concatenate([y, ty]), _FASHION_CLASSES, "Fashion-MNIST")
    return RawImages(np.concatenate([x, tx])[:, None], labels, is_test, _FASHION_CLASSES, "Fashion-MNIST")


def _fashion_paths(root: Root) -> list[Path]:
    files = [f"{file}.gz" for file in _FASHION_FILES]
    urls = [f"{_FASHION_URL}/{file}" for file in files]
    other = [
        f"{folder}/{_FASHION_FILES[0]}{end}" for folder in (*_FASHION_FOLDERS, _FASHION_DEBIAN) for end in (".gz", "")
    ]
    announce([f"fashion-mnist/{file}" for file in files], urls, other)
    own = data_root(root)
    folders = [] if own is None else [own / folder for folder in _FASHION_FOLDERS]
    for folder in [*folders, _FASHION_DEBIAN]:
        for suffix in (".gz", ""):
            paths = [folder / (file + suffix) for file in _FASHION_FILES]
            if all(path.is_file() for path in paths):
                return paths
    return locate([f"fashion-mnist/{file}" for file in files], root=root, urls=urls, hint="fashion-mnist")


def _read_idx(path: Path) -> Array:
    """Read bytes of any shape: two zeros, the type (8), the number of axes, their lengths (big-endian), the values."""
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged ({error}).") from error
    if len(content) < 4 or content[:3] != b"\x00\x00\x08" or content[3] not in (1, 3):
        raise DataError(f"{path} is no idx file of bytes: it begins with {content[:4].hex() or 'nothing'}.")
    start = 4 + 4 * content[3]
    shape = tuple(int.from_bytes(content[at : at + 4], "big") for at in range(4, start, 4))
    if len(content) - start != np.prod(shape, dtype=object):
        raise DataError(f"{path} is damaged: {len(content) - start:,} bytes do not fill the shape {shape}.")
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


_CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_CIFAR_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
_CIFAR_FILES = (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin")
_CIFAR_PACKED = "cifar10/cifar10_jpeg_packed.npz"


_CIFAR_ARCHIVE = "cifar10/cifar-10-binary.tar.gz"


@IMAGES.register("cifar10")
def _read_cifar(root: Root) -> RawImages:
    """Read CIFAR-10 (Krizhevsky 2009): the packed JPEG copy if the data folder has it, else the official binary one."""
    announce([_CIFAR_ARCHIVE], [_CIFAR_URL], [_CIFAR_PACKED])
    own = data_root(root)
    if own is not None and (own / _CIFAR_PACKED).is_file():
        return _read_packed(own / _CIFAR_PACKED)
    (path,) = locate([_CIFAR_ARCHIVE], root=root, urls=[_CIFAR_URL], hint="cifar10")
    records = np.stack([_read_batch(content, file, path) for file, content in _unpacked(path).items()])
    is_test = np.repeat(np.arange(len(_CIFAR_FILES)) == len(_CIFAR_FILES) - 1, records.shape[1])
    records = records.reshape(-1, records.shape[2])
    labels = _check_classes(records[:, 0], _CIFAR_CLASSES, str(path))
    return RawImages(records[:, 1:].reshape(-1, 3, 32, 32), labels, is_test, _CIFAR_CLASSES, "CIFAR-10")


def _unpacked(path: Path) -> dict[str, bytes]:
    """Return the contents of the six batches, in order; nothing is written."""
    found: dict[str, bytes] = {}
    try:
        with gzip.open(path) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            for member in archive:
                file = archive.extractfile(member)
                if file is not None and Path(member.name).name in _CIFAR_FILES:
                    found[Path(member.name).name] = file.read()
            while stream.read(1 << 20):  # tarfile stops before the checksum, which lies behind the last byte
                pass
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise DataError(f"{path} is damaged or no .tar.gz file ({error}).") from error
    missing = [file for file in _CIFAR_FILES if file not in found]
    if missing:
        raise DataError(f"{path} lacks {', '.join(missing)}.")
    return {file: found[file] for file in _CIFAR_FILES}


def _read_batch(content: bytes, file: str, path: Path) -> Array:
    """Read 10,000 records: a byte for the class, then 32 x 32 red, green and blue ones."""
    if len(content) != 10000 * 3073:
        raise DataError(f"{path}: {file} has {len(content):,} bytes, not {10000 * 3073:,}.")
    return np.frombuffer(content, dtype=np.uint8).reshape(10000, 3073)


def _read_packed(path: Path) -> RawImages:
    """Read JPEG files that share one header: file ``i`` is the header and ``blob[offsets[i]:offsets[i + 1]]``."""
    packed = read_npz(path, ("header", "blob", "offsets", "labels", "is_test", "classes"))
    offsets, labels, is_test = packed["offsets"].astype(np.int64), packed["labels"], packed["is_test"]
    if (
        len(offsets) != len(labels) + 1
        or is_test.shape != labels.shape
        or is_test.dtype != bool
        or (np.diff(offsets) <= 0).any()
        or offsets[0] != 0
        or offsets[-1] != len(packed["blob"])
    ):
        raise DataError(f"{path} is damaged: its offsets, labels and JPEG bytes do not fit together.")
    classes = tuple(str(name) for name in packed["classes"])
    labels = _check_classes(labels, classes, str(path))
    x = _decoded(packed["header"].tobytes(), packed["blob"].tobytes(), offsets, path)
    return RawImages(x, labels, is_test, classes, "CIFAR-10 (JPEG copy)")


def _decoded(header: bytes, blob: bytes, offsets: Array, path: Path) -> Array:
    """Decode all images once; the next time their pixels come from the cache, where the bytes' hash names them."""
    name = hashlib.sha256(header + blob + offsets.tobytes()).hexdigest()[:16]
    target = cache_root() / "cifar10" / f"decoded-{name}.npy"
    shape = (len(offsets) - 1, 3, 32, 32)
    try:
        cached: Array = np.load(target, mmap_mode="r", allow_pickle=False)
        if cached.shape == shape and cached.dtype == np.uint8:
            return cached
    except (OSError, ValueError, EOFError):
        pass  # not there or damaged: it is written anew
    x = np.empty(shape, dtype=np.uint8)
    for row, (start, stop) in enumerate(pairwise(offsets)):
        x[row] = _decode(header + blob[start:stop], f"{path}: image {row}")
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(target) as partial:
        np.save(partial, x)
    return x


def _decode(content: bytes, what: str) -> Array:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
            pixels = np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{what} cannot be decoded ({error}).") from error
    if pixels.shape != (32, 32, 3):
        raise DataError(f"{what} has the shape {pixels.shape}, not (32, 32, 3).")
    return pixels.transpose(2, 0, 1)


def _check_classes(labels: Array, classes: tuple[str, ...], what: str) -> Array:
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or (labels < 0).any() or (labels >= len(classes)).any():
        raise DataError(f"{what}: labels must be whole numbers from 0 to {len(classes) - 1}.")
    return labels
