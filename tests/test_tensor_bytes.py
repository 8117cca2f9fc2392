"""Safetensors are the same bytes for the same content, and what the library reads."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load

from graphsparse.tensor_bytes import to_bytes

WORDS = st.dictionaries(st.text(min_size=1, max_size=8), st.text(max_size=20), max_size=6)


@given(words=WORDS, shapes=st.dictionaries(st.sampled_from("abc"), st.lists(st.integers(0, 3), max_size=3), min_size=1))
def test_what_the_library_reads_is_what_was_written_and_the_order_of_words_has_no_say(words, shapes):
    tensors = {name: torch.rand(shape).double() for name, shape in shapes.items()}
    blob = to_bytes(tensors, words)
    assert blob == to_bytes(tensors, dict(reversed(words.items())))
    again = load(blob)
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[name], value) for name, value in tensors.items())


def test_the_words_are_there(tmp_path):
    (tmp_path / "a").write_bytes(to_bytes({"a": torch.arange(3)}, {"who": 'ä "quoted" \n', "b": ""}))
    with safe_open(tmp_path / "a", "pt") as file:
        assert file.metadata() == {"who": 'ä "quoted" \n', "b": ""}
        assert file.get_tensor("a").tolist() == [0, 1, 2]
