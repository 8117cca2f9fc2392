"""Hashes that files hold: the values below were made before there was one place for them."""

import pytest
import torch

from graphsparse.fit.fingerprint import model_hash
from graphsparse.hashing import framed_hash, masks_hash, named_hash, quick_hash, tensor_hash

TENSORS = {
    "b": torch.arange(6.0).view(2, 3).t(),  # not contiguous
    "a": torch.tensor([True, False]),
    "s": torch.tensor(1.5),
    "e": torch.empty(0, 2, dtype=torch.int64),
}
MASKS = {"m": torch.tensor([True, False, True]), "k": torch.ones(2, 5, dtype=torch.bool)}


def test_runs():
    assert tensor_hash(*TENSORS.values(), None) == "c3678319452c219ce65c7b28f0d009a5860e8c5d9f54f06167cb2c2c56a40cc8"
    expected = "2fcd6dbc75359a4e4af0114f2525abee82cbd00aac8e5ac9525ed9add8da7c29"
    assert model_hash(torch.nn.BatchNorm1d(3)) == expected


def test_checkpoints_and_networks():
    assert named_hash("text", TENSORS) == "4fdffc4a1e8fdbe5af336935e326f4e0bfe324d1f69f8e7219c9b273a20fcd06"


def test_tickets_and_graphs():
    assert framed_hash(TENSORS, "x", "yz") == "c5b97f8216890da31192a9ca2652bf8f4709e57c6d0e765962811e9832a5137f"


def test_masks():
    assert masks_hash(MASKS) == "c42e57730a6c71bcf54558a37360bc1ec9d63b545cc2edb2242e8294651e3778"


@pytest.mark.parametrize(
    ("name", "expected"), [("b", "393ce66f88633acad0d799e26cceb0f3"), ("e", "3178fcb2b67663092a2ccbd98dc510e6")]
)
def test_keys_of_traces(name, expected):
    assert quick_hash(TENSORS[name]) == expected


@pytest.mark.parametrize("hashed", [tensor_hash, quick_hash, lambda t: named_hash("", {"t": t})])
def test_a_view_that_is_conjugated_is_read_by_value(hashed):
    """torch refuses the bytes of such a view."""
    values = torch.tensor([1 + 2j, 3 - 4j])
    assert hashed(values.conj()) == hashed(values.conj().resolve_conj())
