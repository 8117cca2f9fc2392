"""Images by name: the draw, the scale, the readers on small made-up files, and the real data."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsparse.data import ImageSet, crop_flip, image_names, load_images
from graphsparse.data import images as room
from graphsparse.errors import DataError
from graphsparse.fit import Task, fit
from graphsparse.nn import make_cnn

FASHION_FILES = ["train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"]
PARTS = ("train", "val", "test")


def rows(part: tuple[torch.Tensor, torch.Tensor]) -> set[bytes]:
    return {image.numpy().tobytes() for image in part[0]}


def same(one: ImageSet, two: ImageSet) -> bool:
    return all(torch.equal(a, b) for part in PARTS for a, b in zip(getattr(one, part), getattr(two, part), strict=True))


def idx(array: np.ndarray[Any, Any]) -> bytes:
    head = bytes([0, 0, 8, array.ndim]) + b"".join(length.to_bytes(4, "big") for length in array.shape)
    return head + array.astype(np.uint8).tobytes()


def fashion_arrays() -> list[np.ndarray[Any, Any]]:
    """60 and 20 images of 6x6 pixels; the upper left pixel tells the class."""
    found = []
    for seed, count in ((0, 60), (1, 20)):
        x = np.random.default_rng(seed).integers(0, 256, (count, 6, 6))
        y = np.arange(count) % 10
        x[:, 0, 0] = y * 20
        found += [x, y]
    return found


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder and cache, and no network or package that could fill in."""
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("GRAPHSPARSE_DATA", str(folder))
    monkeypatch.setenv("GRAPHSPARSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(room, "_FASHION_DEBIAN", tmp_path / "no-package")

    def offline(*_: Any, **__: Any) -> None:
        raise OSError("no network in tests")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    return folder


def write_fashion(folder: Path, suffix: str = ".gz") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file, array in zip(FASHION_FILES, fashion_arrays(), strict=True):
        content = idx(array)
        (folder / f"{file}-ubyte{suffix}").write_bytes(gzip.compress(content) if suffix else content)


# ----- the draw and the scale


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 1000), train=st.integers(1, 1079))
def test_digits_are_drawn_in_proportion(seed: int, train: int) -> None:
    images = load_images("digits", train=train, seed=seed)
    assert [len(getattr(images, part)[0]) for part in PARTS] == [train, 359, 359]
    for part in PARTS:
        x, y = getattr(images, part)
        assert x.dtype == torch.float32
        assert y.dtype == torch.int64
        counts = torch.bincount(y, minlength=10)
        assert counts.max() - counts.min() <= 0.05 * len(y) / 10 + 2


def test_the_parts_share_no_image_and_leave_none_out() -> None:
    images = load_images("digits")
    parts = [rows(getattr(images, part)) for part in PARTS]
    assert len(set.union(*parts)) == sum(map(len, parts)) == 1797
    assert len(images.train[0]) == 1079


def test_a_seed_is_a_draw_and_the_test_part_stays() -> None:
    assert same(load_images("digits", seed=3), load_images("digits", seed=3))
    one, two = load_images("digits", seed=3), load_images("digits", seed=4)
    assert not torch.equal(one.val[1], two.val[1])
    assert torch.equal(one.test[1], two.test[1])


def test_the_draw_leaves_global_generators_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    load_images("digits", train=10)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()


def test_how_many_train_and_how_large_does_not_change_who_validates() -> None:
    few, many = load_images("digits", train=100), load_images("digits", train=800)
    assert torch.equal(few.val[1], many.val[1])
    assert torch.equal(few.train[1], many.train[1][:100])
    assert torch.equal(few.val[1], load_images("digits", size=4).val[1])


def test_the_training_part_has_mean_0_and_deviation_1(root: Path) -> None:
    write_fashion(root / "fashion-mnist")
    images = load_images("fashion-mnist", train=30, val=20, size=3)
    x = images.train[0].double()
    assert float(x.mean()) == pytest.approx(0, abs=1e-6)
    assert float(x.std(correction=0)) == pytest.approx(1, abs=1e-6)


def test_one_scale_for_all_parts_that_the_training_part_sets(root: Path) -> None:
    write_fashion(root / "fashion-mnist")
    images = load_images("fashion-mnist", val=10)
    x, _, tx, ty = fashion_arrays()
    pixels = {image.tobytes(): image for image in x.astype(np.uint8)}
    assert len(pixels) == 60
    shift, scale = np.polyfit(images.test[0].numpy().ravel().astype(float), tx.ravel() / 255, 1)[::-1]
    found = [np.rint((part[0].numpy() * scale + shift) * 255).astype(np.uint8) for part in (images.train, images.val)]
    drawn = [pixels.pop(image.tobytes()) for part in found for image in part]  # each once
    assert not pixels
    train = np.stack(drawn[:50]) / 255
    assert (shift, scale) == pytest.approx((train.mean(), train.std()), rel=1e-5)
    assert images.test[1].tolist() == ty.tolist()
    for part, x in zip((images.train, images.val), found, strict=True):
        assert (x[:, 0, 0, 0] // 20).tolist() == part[1].tolist()  # every image has kept its label


def test_channels_of_one_value_are_no_division_by_zero(root: Path) -> None:
    write_fashion(root / "fashion-mnist")
    for file, array in zip(FASHION_FILES[::2], fashion_arrays()[::2], strict=True):
        (root / "fashion-mnist" / f"{file}-ubyte.gz").write_bytes(gzip.compress(idx(array * 0 + 7)))
    assert not load_images("fashion-mnist", val=10).train[0].any()


def test_areas_are_averaged() -> None:
    """Half the size is the mean of 2x2 pixels, before and after the scale alike."""
    whole, half = load_images("digits"), load_images("digits", size=4)
    pooled = whole.train[0].reshape(-1, 4, 2, 4, 2).mean((2, 4))
    pooled = (pooled - pooled.mean()) / pooled.std(correction=0)
    torch.testing.assert_close(half.train[0][:, 0], pooled, atol=1e-4, rtol=1e-4)
    assert load_images("digits", size=5).test[0].shape == (359, 1, 5, 5)


def test_an_image_set_says_what_it_is() -> None:
    images = load_images("Digits")
    assert (images.name, images.num_classes, images.in_channels) == ("digits", 10, 1)
    assert images.classes == tuple("0123456789")
    assert images.note == "scikit-learn digits"
    assert image_names() == ["cifar10", "digits", "fashion-mnist"]


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("cifar", {}, "did you mean 'cifar10'"),
        ("svhn", {}, "known are cifar10, digits, fashion-mnist"),
        ("digits", {"train": 1080}, "digits has 1,438 images to train and validate .* train=1,080 and val=359"),
        ("digits", {"train": 0}, "at least one each"),
        ("digits", {"size": 0}, "size is a number of pixels"),
        ("digits", {"seed": -1}, "seed must be at least 0"),
    ],
)
def test_bad_input_is_named(name: str, options: dict[str, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        load_images(name, **options)  # type: ignore[arg-type]


def test_a_name_is_a_text() -> None:
    with pytest.raises(TypeError, match="got int"):
        load_images(10)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"val": 60}, {"val": 0}, {"val": 61}, {"train": 50, "val": 11}])
def test_no_more_than_there_are(root: Path, options: dict[str, int]) -> None:
    write_fashion(root / "fashion-mnist")
    with pytest.raises(ValueError, match="60 images to train and validate"):
        load_images("fashion-mnist", **options)  # type: ignore[arg-type]


# ----- Fashion-MNIST


@pytest.mark.parametrize("folder", ["fashion-mnist", "FashionMNIST/raw"])
@pytest.mark.parametrize("suffix", [".gz", ""])
def test_fashion_is_found(root: Path, folder: str, suffix: str) -> None:
    write_fashion(root / folder, suffix)
    images = load_images("fashion_mnist", val=10)
    assert [tuple(getattr(images, part)[0].shape) for part in PARTS] == [(50, 1, 6, 6), (10, 1, 6, 6), (20, 1, 6, 6)]
    assert images.classes[-1] == "Ankle boot"


def test_fashion_in_the_package_the_cache_and_another_root(root: Path, tmp_path: Path) -> None:
    write_fashion(tmp_path / "cache" / "fashion-mnist")
    cached = load_images("fashion-mnist", val=10)
    write_fashion(tmp_path / "no-package")
    assert same(load_images("fashion-mnist", val=10), cached)
    write_fashion(tmp_path / "other" / "fashion-mnist", "")
    assert same(load_images("fashion-mnist", val=10, root=tmp_path / "other"), cached)


@pytest.mark.parametrize("name", ["fashion-mnist", "cifar10"])
def test_without_files_and_network_it_says_where_to_put_them(root: Path, name: str) -> None:
    with pytest.raises(DataError, match=rf"{name} is not here: put {name}/.* GRAPHSPARSE_DATA .*no network"):
        load_images(name)


def cut(content: bytes) -> bytes:
    return content[:-5]


def damaged_idx(change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    return lambda content: gzip.compress(change(gzip.decompress(content)))


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        (0, cut, "is damaged"),
        (0, damaged_idx(cut), "do not fill the shape"),
        (0, damaged_idx(lambda content: content + b"!"), "do not fill the shape"),
        (
            0,
            damaged_idx(lambda content: b"\x00\x00\x0d" + content[3:]),
            "no idx file of bytes: it begins with 00000d03",
        ),
        (0, damaged_idx(lambda content: b""), "begins with nothing"),
        (1, damaged_idx(lambda content: content[:6]), "do not fill the shape"),
        (0, lambda content: b"<html>", "no idx file"),
        (1, lambda content: gzip.compress(idx(np.arange(59) % 10)), "do not fit together"),
        (1, lambda content: gzip.compress(idx(np.arange(60))), "from 0 to 9"),
        (2, lambda content: gzip.compress(idx(np.zeros((20, 6, 7)))), "do not fit together"),
        (3, lambda content: gzip.compress(idx(np.zeros((20, 6, 6)))), "do not fit together"),
        (0, lambda content: gzip.compress(b"\x00\x00\x08\x03" + b"\xff" * 12 + b"\x00"), "do not fill the shape"),
    ],
)
def test_damaged_fashion_is_noticed(root: Path, file: int, change: Callable[[bytes], bytes], said: str) -> None:
    write_fashion(root / "fashion-mnist")
    path = root / "fashion-mnist" / f"{FASHION_FILES[file]}-ubyte.gz"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataError, match=said):
        load_images("fashion-mnist", val=10)


# ----- CIFAR-10


def packed(count: int = 40) -> dict[str, Any]:
    """Small JPEG files with their common header taken off, as the packed copy has them."""
    from PIL import Image

    files = []
    for number in range(count):
        stream = io.BytesIO()
        pixels = np.full((32, 32, 3), (number % 10) * 20, dtype=np.uint8)
        pixels[:, :, 2] = 255
        Image.fromarray(pixels).save(stream, "JPEG", quality=75)
        files.append(stream.getvalue())
    header = files[0][:600]
    assert all(file.startswith(header) for file in files)
    bodies = [file[600:] for file in files]
    return {
        "header": np.frombuffer(header, dtype=np.uint8),
        "blob": np.frombuffer(b"".join(bodies), dtype=np.uint8),
        "offsets": np.cumsum([0, *map(len, bodies)]).astype(np.uint32),
        "labels": (np.arange(count) % 10).astype(np.uint8),
        "is_test": np.arange(count) % 4 == 3,
        "classes": np.array([f"class {number}" for number in range(10)]),
    }


def write_packed(root: Path, arrays: dict[str, Any]) -> Path:
    path = root / "cifar10" / "cifar10_jpeg_packed.npz"
    path.parent.mkdir(exist_ok=True)
    np.savez(path, **arrays)
    return path


def test_the_jpeg_copy_is_decoded(root: Path) -> None:
    write_packed(root, packed())
    images = load_images("cifar10", val=10)
    assert [tuple(getattr(images, part)[0].shape) for part in PARTS] == [
        (20, 3, 32, 32),
        (10, 3, 32, 32),
        (10, 3, 32, 32),
    ]
    assert images.note == "CIFAR-10 (JPEG copy)"
    assert images.in_channels == 3
    assert images.classes[3] == "class 3"
    red, y = images.test[0][:, 0].mean((1, 2)), images.test[1]
    assert y.tolist() == [number % 10 for number in range(3, 40, 4)]
    assert torch.corrcoef(torch.stack((red, y.float())))[0, 1] > 0.999  # the colour grows with the class


def test_it_is_decoded_once(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_packed(root, packed())
    first = load_images("cifar10", val=10)
    (cached,) = (tmp_path / "cache" / "cifar10").iterdir()
    real = room._decode
    monkeypatch.setattr(room, "_decode", lambda *_: pytest.fail("decoded again"))
    assert same(load_images("cifar10", val=10), first)
    monkeypatch.setattr(room, "_decode", real)
    for damage in (cached.read_bytes()[:1000], b""):
        cached.write_bytes(damage)
        assert same(load_images("cifar10", val=10), first)
    write_packed(root, packed(44))  # other bytes have another name
    assert len(load_images("cifar10", val=10).test[0]) == 11


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"blob": None}, "lacks the arrays blob"),
        ({"offsets": np.arange(3)}, "do not fit together"),
        ({"offsets": np.arange(41)}, "do not fit together"),
        ({"is_test": np.zeros(40)}, "do not fit together"),
        ({"labels": np.arange(40)}, "from 0 to 9"),
        ({"header": np.frombuffer(b"GIF89a", dtype=np.uint8)}, "image 0 cannot be decoded"),
        ({"labels": np.array([object()] * 40)}, "damaged or no .npz file of plain arrays"),
    ],
)
def test_a_damaged_copy_is_noticed(root: Path, tmp_path: Path, change: dict[str, Any], said: str) -> None:
    arrays = {key: value for key, value in {**packed(), **change}.items() if value is not None}
    write_packed(root, arrays)
    with pytest.raises(DataError, match=said):
        load_images("cifar10", val=10)
    assert not list((tmp_path / "cache").rglob("*.npy"))


def test_a_truncated_jpeg_is_named(root: Path) -> None:
    arrays = packed()
    sizes = np.diff(arrays["offsets"])
    starts = arrays["offsets"][:-1]
    bodies = [arrays["blob"][start : start + size].tobytes() for start, size in zip(starts, sizes, strict=True)]
    bodies[7] = bodies[7][:20]
    arrays["blob"] = np.frombuffer(b"".join(bodies), dtype=np.uint8)
    arrays["offsets"] = np.cumsum([0, *map(len, bodies)])
    write_packed(root, arrays)
    with pytest.raises(DataError, match="image 7 cannot be decoded"):
        load_images("cifar10", val=10)


def write_binary(path: Path, batches: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, content in batches.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


BATCHES = ["test_batch.bin", *(f"data_batch_{number}.bin" for number in (2, 1, 3, 4, 5))]


def test_the_official_binary_files(root: Path, tmp_path: Path) -> None:
    """Whatever their order in the archive; the red channel comes first."""
    batch = np.zeros((10000, 3073), dtype=np.uint8)
    batch[:, 0] = np.arange(10000) % 10
    batch[:, 1:1025] = np.arange(10000)[:, None] % 256
    batches = {name: batch.tobytes() for name in BATCHES}
    write_binary(tmp_path / "cache" / "cifar10" / "cifar-10-binary.tar.gz", {"readme.html": b"!", **batches})
    images = load_images("cifar10", train=100, val=50, size=2)
    assert [len(getattr(images, part)[0]) for part in PARTS] == [100, 50, 10000]
    assert images.note == "CIFAR-10"
    assert images.classes[0] == "airplane"
    assert images.test[1].tolist() == [number % 10 for number in range(10000)]
    assert images.test[0][:256, 0, 0, 0].diff().min() > 0
    assert not images.train[0][:, 1:].any()


@pytest.mark.parametrize(
    ("batches", "said"),
    [
        ({"test_batch.bin": b""}, "lacks data_batch_1.bin"),
        (dict.fromkeys(BATCHES, b"123"), "has 3 bytes, not 30,730"),
    ],
)
def test_damaged_binary_files_are_noticed(root: Path, batches: dict[str, bytes], said: str) -> None:
    path = root / "cifar10" / "cifar-10-binary.tar.gz"
    write_binary(path, batches)
    with pytest.raises(DataError, match=said):
        load_images("cifar10")


@pytest.mark.parametrize("keep", [0, 100, -4])
def test_a_truncated_archive_is_noticed(root: Path, keep: int) -> None:
    """Even where only the checksum at its end is gone."""
    path = root / "cifar10" / "cifar-10-binary.tar.gz"
    write_binary(path, dict.fromkeys(BATCHES, b"123"))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"damaged or no \.tar\.gz file"):
        load_images("cifar10")


def test_an_altered_archive_is_noticed(root: Path) -> None:
    path = root / "cifar10" / "cifar-10-binary.tar.gz"
    content = np.random.default_rng(0).integers(0, 256, 50_000).astype(np.uint8).tobytes()  # is stored as it is
    write_binary(path, dict.fromkeys(BATCHES, content))
    altered = bytearray(path.read_bytes())
    altered[20_000] ^= 1
    path.write_bytes(altered)
    with pytest.raises(DataError, match="CRC check failed"):
        load_images("cifar10")


# ----- the real data


def test_real_fashion_can_be_learned() -> None:
    if not any(room._FASHION_DEBIAN.glob("*.gz")):
        pytest.skip("Debian's package dataset-fashion-mnist is not installed")
    images = load_images("fashion-mnist", size=7, train=2000)
    assert [len(getattr(images, part)[0]) for part in PARTS] == [2000, 5000, 10000]
    assert torch.bincount(images.train[1]).tolist() == [200] * 10
    assert torch.bincount(images.test[1]).tolist() == [1000] * 10
    task = Task(images.train, images.val, images.test, batch_size=100)
    assert fit(make_cnn("resnet8", width=4, in_channels=1, seed=0), task, epochs=3).test > 0.7


def test_real_cifar(need: Callable[[str], Path], root: Path) -> None:
    """The published counts of the whole file, and what is read from every tenth image."""
    with np.load(need("cifar10/cifar10_jpeg_packed.npz")) as file:
        whole = dict(file)
    assert np.bincount(whole["labels"][whole["is_test"]]).tolist() == [1000] * 10
    assert np.bincount(whole["labels"][~whole["is_test"]]).tolist() == [5000] * 10
    tenth, ends = slice(None, None, 10), whole["offsets"]
    write_packed(root, whole | {
        "blob": np.concatenate([whole["blob"][a:b] for a, b in zip(ends[:-1][tenth], ends[1:][tenth], strict=True)]),
        "offsets": np.cumsum([0, *np.diff(ends)[tenth]]),
        "labels": whole["labels"][tenth],
        "is_test": whole["is_test"][tenth],
    })  # fmt: skip
    images = load_images("cifar10", train=1000, val=500)
    assert [len(getattr(images, part)[0]) for part in PARTS] == [1000, 500, whole["is_test"][tenth].sum()]
    assert images.classes == room._CIFAR_CLASSES
    # The known means of the official training images (0.491, 0.482, 0.447) belong to the scale; a large sample of the
    # test part must agree with the training part in both moments.
    assert images.test[0].mean((0, 2, 3)).abs().max() < 0.1
    assert (images.test[0].std((0, 2, 3)) - 1).abs().max() < 0.1


def test_crop_flip_shifts_and_mirrors_whole_images():
    torch.manual_seed(0)
    images = torch.arange(1.0, 65.0).view(1, 1, 8, 8).repeat(400, 2, 1, 1)
    images[:, 1] += 100
    found = crop_flip(images, padding=2)
    padded = torch.nn.functional.pad(images[0], (2, 2, 2, 2))
    possible = {}
    for top, left in product(range(5), range(5)):
        window = padded[:, top : top + 8, left : left + 8]
        possible |= {(top, left, False): window, (top, left, True): window.flip(2)}
    seen = set()
    for image in found:
        matches = [key for key, wanted in possible.items() if torch.equal(image, wanted)]
        assert len(matches) == 1  # both channels move together
        seen.add(matches[0])
    assert seen == set(possible)


def test_crop_flip_is_seeded_and_leaves_its_input():
    images = torch.rand(5, 3, 6, 7)
    before = images.clone()
    torch.manual_seed(3)
    first = crop_flip(images)
    torch.manual_seed(3)
    assert torch.equal(first, crop_flip(images))
    assert torch.equal(images, before)
