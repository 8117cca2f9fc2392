"""Rows on disk: whole or not at all, whatever the disk does, and what an earlier failure left is mended."""

import errno
import itertools
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import warnings

import pytest

from graphsparse.report import append_row, read_rows

ROWS = [{"seed": seed, "figures": {"test": 0.5 + seed, "words": "x" * 300}} for seed in range(4)]


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_rows_come_back_and_the_last_of_equal_keys_counts(tmp_path):
    path = tmp_path / "deep" / "rows.jsonl"
    for row in [*ROWS, ROWS[0] | {"figures": 1}]:
        append_row(path, row)
    assert read_rows(path, ["seed"]) == [ROWS[0] | {"figures": 1}, *ROWS[1:]]


@pytest.mark.parametrize("failure", ["short", "none", "sync", "interrupt"])
def test_a_row_that_cannot_be_written_leaves_the_file_as_it_was(tmp_path, monkeypatch, failure):
    path, write = tmp_path / "rows.jsonl", os.write
    append_row(path, ROWS[0])
    calls = []

    def short(descriptor, content):
        calls.append(len(content))
        if failure == "interrupt" and len(calls) == 2:
            raise KeyboardInterrupt
        if failure == "none" or len(calls) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, content[:100])

    def broken(descriptor):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    if failure == "sync":
        monkeypatch.setattr(os, "fsync", broken)
    else:
        monkeypatch.setattr(os, "write", short)
    with pytest.raises(KeyboardInterrupt if failure == "interrupt" else OSError) as error:
        append_row(path, ROWS[1])
    assert failure == "interrupt" or error.value.filename == str(path)
    monkeypatch.undo()
    assert path.read_text() == lines(ROWS[:1])
    append_row(path, ROWS[1])
    assert read_rows(path, ["seed"]) == ROWS[:2]


def test_a_write_in_pieces_is_one_row(tmp_path, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, content: write(descriptor, content[:7]))
    append_row(tmp_path / "rows.jsonl", ROWS[2])
    assert (tmp_path / "rows.jsonl").read_text() == lines(ROWS[2:3])


def test_a_file_at_its_limit_of_size(tmp_path):
    """The system itself writes a part of the row and then refuses the rest."""
    path = tmp_path / "rows.jsonl"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    append_row(path, ROWS[0])
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 50, before[1]))
    try:
        with pytest.raises(OSError, match=r"rows\.jsonl"):
            append_row(path, ROWS[1])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_text() == lines(ROWS[:1])


def fill(path):
    for seed in itertools.count():
        append_row(path, ROWS[0] | {"seed": seed})


def test_a_full_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(disk)]
    try:
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("a small disk needs the right to mount one")
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    try:
        with pytest.raises(OSError, match=r"rows\.jsonl") as error:
            fill(disk / "rows.jsonl")
        assert error.value.errno == errno.ENOSPC
        made = [row["seed"] for row in read_rows(disk / "rows.jsonl", ["seed"])]
        assert made == list(range(len(made)))
        assert (disk / "rows.jsonl").read_text() == lines(ROWS[0] | {"seed": seed} for seed in made)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize(
    ("content", "kept"),
    [
        (lines(ROWS[:2]) + lines(ROWS[2:3])[:200], [0, 1]),  # killed in the middle of a row
        (lines(ROWS[:2])[:-1], [0, 1]),  # all but the end of the line
        (lines(ROWS[:1])[:-60] + lines(ROWS[1:3]), [1, 2]),  # torn, and the next one glued to it
        (lines(ROWS[:2]).replace("\n", "") + "\n", [0, 1]),  # two in a line
        (lines(ROWS[:1]) + "{" + lines(ROWS[1:2]), [0, 1]),
        (lines(ROWS[:1]) + "\0" * 512 + "\n" + lines(ROWS[1:2]), [0, 1]),  # a crash of the machine
        (lines(ROWS[:1]) + "\0" * 512, [0]),
        (lines(ROWS[:1])[:-100] + "\n" + lines(ROWS[1:2]), [1]),
        ("{", []),
        ("", []),
    ],
)
def test_what_was_torn_is_cut_out_with_a_word_and_whole_rows_stay(tmp_path, content, kept):
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert [row["seed"] for row in read_rows(path, ["seed"])] == kept
    intact = content == lines(ROWS[:2])[:-1] or not content
    assert len(said) == (0 if intact else 1)
    assert all("line" in str(warning.message) and str(path) in str(warning.message) for warning in said)
    append_row(path, ROWS[3])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [row["seed"] for row in read_rows(path, ["seed"])] == [*kept, 3]
    assert path.read_text() == lines([ROWS[seed] for seed in [*kept, 3]])


def test_a_torn_end_is_not_glued_to_what_follows(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(lines(ROWS[:1]) + '{"seed": 9, "fig')
    append_row(path, ROWS[1])
    with pytest.warns(UserWarning, match=r"line 2 of .*rows\.jsonl"):
        assert read_rows(path, ["seed"]) == ROWS[:2]


@pytest.mark.parametrize("line", ['{"other": 1}', "[1]", "3", "seed,test", '"seed"'])
def test_a_file_of_something_else_is_refused_and_left_alone(tmp_path, line):
    path = tmp_path / "rows.jsonl"
    path.write_text(lines(ROWS[:1]) + line + "\n")
    with pytest.raises(ValueError, match=r"line 2 of .*rows\.jsonl is no row of this study"):
        read_rows(path, ["seed"])
    assert path.read_text() == lines(ROWS[:1]) + line + "\n"


def test_what_older_rows_leave_out_is_filled_in_and_not_written(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(lines(ROWS[:2]) + '{"seed"')
    with pytest.warns(UserWarning, match="torn"):
        rows = read_rows(path, ["seed", "split"], {"split": "public"})
    assert rows == [{"split": "public", **row} for row in ROWS[:2]]
    assert path.read_text() == lines(ROWS[:2])


def many(path, first):
    for seed in range(first, first + 40):
        append_row(path, ROWS[0] | {"seed": seed})


def test_processes_may_add_at_once_while_another_mends(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"seed": 5, "figu')
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    writers = [context.Process(target=many, args=(path, 100 * number)) for number in range(3)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for writer in writers:
            writer.start()
        while any(writer.is_alive() for writer in writers):
            read_rows(path, ["seed"])
    found = [row["seed"] for row in read_rows(path, ["seed"])]
    assert sorted(found) == [seed for first in (0, 100, 200) for seed in range(first, first + 40)]
