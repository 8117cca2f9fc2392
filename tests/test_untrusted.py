"""What a file of unknown origin may do to its reader: nothing but one sentence."""

import os
import time
from pathlib import Path

import pytest

from graphsparse.errors import DataError, TicketError
from graphsparse.untrusted import read_bytes, read_json_object, reading


@pytest.mark.parametrize(
    ("breaks", "said"),
    [
        (lambda: {}["shape"], "a.json is not a ticket: 'shape' is missing"),
        ([].pop, "a.json is not a ticket: pop from empty list"),
        (lambda: "".join([1]), "a.json is not a ticket: sequence item 0"),
        (lambda: read_json_object(b"[" * 10**6), "nested too deeply"),
        (lambda: bytearray(1 << 62), "more memory than there is"),
        (lambda: Path("/no/such").read_bytes(), "cannot read /no/such: No such file"),
    ],
)
def test_whatever_breaks_is_one_error_with_the_files_name(breaks, said):
    with pytest.raises(TicketError, match=said), reading("a.json", TicketError, "a ticket"):
        breaks()


def test_what_was_said_already_and_what_ends_a_program_pass():
    with pytest.raises(TicketError, match=r"^mine$"), reading("a", TicketError):
        raise TicketError("mine")
    with pytest.raises(KeyboardInterrupt), reading("a", TicketError):
        raise KeyboardInterrupt
    with pytest.raises(DataError, match="a is not a readable file: other"), reading("a", DataError):
        raise TicketError("other")


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"3", b'"a"', b"null", b'{"a": NaN}', b'{"a": -Infinity}', b'{"a": 1e999}',
        b'{"a": 1, "a": 2}', b'{"b": {"a": 1, "a": 2}}', b'{"a": ' + b"9" * 5000 + b"}", b'{"a": 18446744073709551616}',
        b"\xff\xfe{}", b'{"a": "\n"}',
    ],
)  # fmt: skip
def test_json_that_is_none_or_plays_tricks(content):
    with pytest.raises(ValueError, match=r"."):
        read_json_object(content)


def test_json_as_it_is_written():
    assert read_json_object(b'{"a": [1, -2.5e3, true, null, "x", {}], "b": 9223372036854775807}') == {
        "a": [1, -2500.0, True, None, "x", {}],
        "b": 2**63 - 1,
    }


def test_only_regular_files_within_their_folder(tmp_path):
    inside, outside = tmp_path / "in", tmp_path / "out.bin"
    inside.mkdir()
    outside.write_bytes(b"12345")
    (inside / "real").write_bytes(b"123")
    (inside / "near").symlink_to(inside / "real")
    (inside / "far").symlink_to(outside)
    (inside / "zero").symlink_to("/dev/zero")
    os.mkfifo(inside / "pipe")
    assert read_bytes(inside / "near", folder=inside, largest=3) == b"123"
    assert read_bytes(inside / "far") == b"12345"
    start = time.process_time()
    for name, said in (("far", "leaves its folder"), ("zero", "leaves its folder"), ("pipe", "no regular file")):
        with pytest.raises(ValueError, match=said):
            read_bytes(inside / name, folder=inside)
    for name, said in (("zero", "no regular file"), ("pipe", "no regular file"), (".", "no regular file")):
        with pytest.raises(ValueError, match=said):
            read_bytes(inside / name)
    with pytest.raises(ValueError, match="5 bytes, at most 4"):
        read_bytes(outside, largest=4)
    with pytest.raises(FileNotFoundError):
        read_bytes(inside / "none", folder=inside)
    assert time.process_time() - start < 1
