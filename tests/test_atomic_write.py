"""Whole files, errors that name them, and what killed writers left."""

import errno
import os
import subprocess
import sys
import time
import uuid

import pytest
import torch
from safetensors.torch import save_file

from graphsparse.atomic_write import atomic_write, clear_leftovers

KILLED = """
import os, sys
from pathlib import Path
from graphsparse.atomic_write import atomic_write
with atomic_write(Path(sys.argv[1])) as partial:
    partial.write_text("half")
    os.kill(os.getpid(), 9)
"""
WRITES = """
import sys
from pathlib import Path
from graphsparse.atomic_write import atomic_write
with atomic_write(Path(sys.argv[1])) as partial:
    partial.write_text("whole")
"""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_a_killed_writer_left_goes_with_the_next_write(tmp_path):
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "a.txt")], check=False)
    (left,) = names(tmp_path)
    assert left.endswith(".a.txt")
    subprocess.run([sys.executable, "-c", WRITES, str(tmp_path / "b.txt")], check=True)
    assert names(tmp_path) == ["b.txt"]


def test_a_living_writer_is_not_disturbed(tmp_path):
    with atomic_write(tmp_path / "a.txt") as partial:
        partial.write_text("half")
        subprocess.run([sys.executable, "-c", WRITES, str(tmp_path / "b.txt")], check=True)
        clear_leftovers(tmp_path, age=0)
        assert partial.exists()
    assert names(tmp_path) == ["a.txt", "b.txt"]


def test_files_of_unknown_writers_go_when_they_are_old_and_others_stay(tmp_path):
    young, old = (tmp_path / f".{uuid.uuid4().hex}.a.txt" for _ in range(2))
    others = [tmp_path / name for name in (".hidden", f".{'g' * 32}.a", f"{uuid.uuid4().hex}.a", f".{'0' * 31}.a")]
    for path in (young, old, *others):
        path.write_text("")
        os.utime(path, (time.time() - 2 * 86_400,) * 2)
    os.utime(young)
    folder = tmp_path / f".{uuid.uuid4().hex}.folder"
    folder.mkdir()
    clear_leftovers(tmp_path)
    assert (young.exists(), old.exists(), folder.exists()) == (True, False, True)
    clear_leftovers(tmp_path, age=0)
    assert not young.exists()
    assert all(path.exists() for path in others)
    clear_leftovers(tmp_path / "nowhere")


def fails(target, write):
    with atomic_write(target) as partial:
        write(partial)


def full(partial):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def in_rust(partial):
    raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize("write", [full, in_rust])
def test_a_full_disk_names_the_file_whoever_writes(tmp_path, write):
    with pytest.raises(OSError, match="No space left on device") as error:
        fails(tmp_path / "a.txt", write)
    assert (error.value.filename, error.value.errno) == (str(tmp_path / "a.txt"), errno.ENOSPC)
    assert names(tmp_path) == []


def test_a_folder_that_is_not_there_or_a_folder_in_its_place_names_the_file(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        fails(tmp_path / "none" / "a", lambda partial: partial.write_text(""))
    assert error.value.filename == str(tmp_path / "none" / "a")
    with pytest.raises(OSError, match="No such file") as error:
        fails(tmp_path / "none" / "a", lambda partial: save_file({"a": torch.ones(1)}, partial))
    assert error.value.filename == str(tmp_path / "none" / "a")
    (tmp_path / "b").mkdir()
    with pytest.raises(IsADirectoryError) as error:
        fails(tmp_path / "b", lambda partial: partial.write_text(""))
    assert error.value.filename == str(tmp_path / "b")


def test_other_errors_are_not_touched(tmp_path):
    def reset(partial):
        raise ConnectionResetError(errno.ECONNRESET, "reset")

    with pytest.raises(ConnectionResetError) as error:
        fails(tmp_path / "a", reset)
    assert error.value.filename is None
    with pytest.raises(FileNotFoundError) as missing:
        fails(tmp_path / "a", lambda partial: (tmp_path / "source").read_text())
    assert missing.value.filename == str(tmp_path / "source")
