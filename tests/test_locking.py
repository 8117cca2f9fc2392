"""One run in a folder at a time, and folders that cannot be written."""

import os
import signal
import subprocess
import sys
import uuid

import pytest

from graphsparse.locking import BusyError, only_one

HOLDS = """
import sys, time
from pathlib import Path
from graphsparse.locking import only_one
with only_one(Path(sys.argv[1])):
    print("in", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLDS, str(tmp_path / "out")], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"in\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_the_second_is_told_who_is_in_it_and_after_a_kill_it_may(tmp_path, holder):
    with (
        pytest.raises(BusyError, match=rf"process {holder.pid} on .*, since .* works in .*out: wait"),
        only_one(tmp_path / "out"),
    ):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / "out" / ".lock").exists()
    with only_one(tmp_path / "out"):
        assert str(os.getpid()) in (tmp_path / "out" / ".lock").read_text()


def test_one_process_may_not_be_in_it_twice(tmp_path):
    with only_one(tmp_path), pytest.raises(BusyError, match=f"process {os.getpid()} "), only_one(tmp_path):
        pass
    with only_one(tmp_path), only_one(tmp_path, lock=".other.lock"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_folders_that_were_made_for_nothing_go_and_others_stay(tmp_path):
    with only_one(tmp_path / "a" / "b"):
        pass
    assert list(tmp_path.iterdir()) == []
    with only_one(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "result").write_text("")
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["result"]
    (tmp_path / "empty").mkdir()
    with only_one(tmp_path / "empty"):
        pass
    assert (tmp_path / "empty").exists()


def test_what_killed_runs_left_goes(tmp_path):
    left = tmp_path / f".{uuid.uuid4().hex}.metrics.json"
    left.write_text("{")
    with only_one(tmp_path):
        assert not left.exists()


def enter(folder, **options):
    with only_one(folder, **options):
        raise AssertionError("it let us in")


def test_what_cannot_be_written_is_told_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot write into .*file: it is no folder; choose another place"):
        enter(tmp_path / "file")
    with pytest.raises(OSError, match=r"cannot write into .*below: Not a directory"):
        enter(tmp_path / "file" / "below")
    (tmp_path / "out" / "metrics.json").mkdir(parents=True)
    with pytest.raises(OSError, match=r"cannot write .*metrics\.json: it is a folder"):
        enter(tmp_path / "out", files=["metrics.json"])
    (tmp_path / "out" / "checkpoints").write_text("")
    with pytest.raises(OSError, match=r"cannot write into .*checkpoints: it is no folder"):
        enter(tmp_path / "out", folders=["checkpoints"])
    with pytest.raises(OSError, match=r"cannot write into /proc/graphsparse"):
        enter(tmp_path / "/proc/graphsparse")
    with pytest.raises(OSError, match=r"cannot write into .*: File name too long"):
        enter(tmp_path / ("x" * 300))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "out"]


def test_a_disk_that_is_mounted_to_be_read(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    try:
        mount = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(disk)]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("a read-only disk needs the right to mount one")
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    try:
        for folder in (disk, disk / "out"):
            with pytest.raises(OSError, match=f"cannot write into {folder}: Read-only file system"):
                enter(folder)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_folder_without_the_right_to_write(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(PermissionError, match=r"cannot write into"):
            enter(tmp_path)
    finally:
        tmp_path.chmod(0o700)
