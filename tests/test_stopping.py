"""Commands that are interrupted, terminated or killed at any moment, and the same commands afterwards."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import psutil
import pytest

from graphsparse.locking import only_one
from graphsparse.stopping import Stopped, stoppable

COMMAND = [sys.executable, "-c", "from graphsparse.cli import main; main()"]
TICKET = ["ticket", "--seeds", "1", "--epochs", "60", "--hidden", "16", "--points", "1", "--json", "--out"]
BENCH = ["bench", "tickets", "--dataset", "digits-knn", "--hidden", "8", "--method", "teddy", "--level", "10"]
BENCH += ["--seeds", "5", "--epochs", "300", "--trials", "1", "--json", "--out"]

SLOW = """
import hashlib, sys, time
from graphsparse import stopping
stopping.GRACE = 0.5

def swallow():
    while True:
        try:
            print("in", flush=True)
            time.sleep(60)
        except BaseException:
            pass

def compute():
    print("in", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", (1 << 31) - 1)

def sleep():
    print("in", flush=True)
    time.sleep(60)

try:
    with stopping.stoppable(lambda: print("last words", flush=True)):
        globals()[sys.argv[1]]()
except stopping.Stopped as stopped:
    print("stopped", flush=True)
    sys.exit(stopped.status)
"""


def start(*words, command=COMMAND, **options):
    return subprocess.Popen(
        [*command, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def run(*words, **options):
    return subprocess.run([*COMMAND, *map(str, words)], capture_output=True, text=True, check=False, **options)


def until(true, process, seconds=120):
    """Wait until something is so, or the process has ended."""
    deadline = time.monotonic() + seconds
    while not true() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("work", "words"), [("sleep", "stopped\n"), ("compute", "last words\n"), ("swallow", "in\nlast words\n")]
)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_whatever_runs(work, words, number):
    process = start(work, command=[sys.executable, "-c", SLOW])
    assert process.stdout.readline() == "in\n"
    time.sleep(0.3)  # until it computes
    process.send_signal(number)
    out, _ = process.communicate(timeout=30)
    assert (out, process.returncode) == (words, 128 + number)


def test_what_was_to_be_ignored_stays_ignored_and_all_is_as_before_afterwards():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    mine = signal.getsignal(signal.SIGTERM)
    try:
        with stoppable(lambda: None) as told:
            os.kill(os.getpid(), signal.SIGHUP)
            with pytest.raises(Stopped):
                os.kill(os.getpid(), signal.SIGTERM)
            assert told == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) == mine
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_comparison_stops_within_seconds_starts_nothing_and_resumes(tmp_path, number):
    words, rows = [*BENCH, tmp_path, "--jobs", 2], tmp_path / "rows.jsonl"
    process = start(*words, start_new_session=True)
    until(lambda: rows.exists() and rows.read_bytes().count(b"\n") > 1, process)
    children = psutil.Process(process.pid).children(recursive=True)
    begun = time.monotonic()
    os.killpg(process.pid, number)  # as a terminal does it: the whole group
    out, error = process.communicate(timeout=120)
    assert time.monotonic() - begun < 20
    assert (out, process.returncode) == ("", 128 + number)
    assert error.splitlines()[-1] == "interrupted; the same command resumes where it stopped"
    assert "Traceback" not in error, error
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    made = len(rows.read_text().splitlines())
    assert 1 <= made < 10, "five seeds, a dense model and a ticket each"
    time.sleep(1)
    assert len(rows.read_text().splitlines()) == made
    if number == signal.SIGINT:
        again = run(*words)
        assert again.returncode == 0, again.stderr
        assert json.loads(again.stdout)["runs"] == 10
        assert f"{10 - made} runs to make, {made} made before" in again.stderr
        assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_ticket_that_is_killed_at_any_moment_is_found_again_and_nothing_is_left(tmp_path):
    begun = time.monotonic()
    whole = run(*TICKET, tmp_path / "whole")
    seconds, chance = time.monotonic() - begun, random.Random(7)
    out = tmp_path / "killed"
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
        process = start(*TICKET, out)
        time.sleep(chance.uniform(0.3, 0.95) * seconds)
        process.send_signal(number)
        process.communicate(timeout=120)
        assert process.returncode in (-number, 128 + number, 0)
    again = run(*TICKET, out)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["ticket_hash"] == json.loads(whole.stdout)["ticket_hash"]
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in (tmp_path / "whole").iterdir())


def test_the_second_command_in_a_folder_is_told_which_process_is_in_it(tmp_path):
    with only_one(tmp_path):
        done = run(*TICKET, tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"error: process {os.getpid()} on " in done.stderr
    assert "Traceback" not in done.stderr


def test_an_interrupted_sparsification_writes_nothing(tmp_path):
    source = tmp_path / "in.csv"
    source.write_text("source,target\n" + "".join(f"{i},{(i * 7919) % 400_000}\n" for i in range(1_500_000)))
    process = start("sparsify", source, tmp_path / "out.csv", "--keep", "0.5")
    time.sleep(2.5)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=120)
    if process.returncode:  # else it was faster
        assert process.returncode == 130
        assert "interrupted; nothing half done is left" in error
        assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]
