"""How many cores count, and what a command settles before torch is loaded."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from graphsparse.cores import leave_room, usable_cores


def described(folder, groups, mounts):
    """A process as the system would describe it; ``{}`` in a mount is the folder."""
    (folder / "cgroup").write_text(groups)
    (folder / "mountinfo").write_text(mounts.replace("{}", str(folder)))
    return folder


def limited(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


V1 = "31 23 0:28 {root} {}/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
V2 = "31 23 0:28 {root} {}/unified rw - cgroup2 cgroup2 rw,nsdelegate\n"


@pytest.fixture(autouse=True)
def sixteen(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)


def test_affinity_counts(monkeypatch, tmp_path):
    assert usable_cores(tmp_path) == 16
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {5})
    assert usable_cores(tmp_path) == 1
    monkeypatch.delattr(os, "sched_getaffinity")
    assert usable_cores(tmp_path) == os.cpu_count()


@pytest.mark.parametrize(("text", "cores"), [("150000 100000", 2), ("max 100000", 16), ("5000 100000", 1), ("", 16)])
def test_version_2_and_a_share_is_rounded_up(tmp_path, text, cores):
    limited(tmp_path / "unified/a/b", cpu__max=text)
    assert usable_cores(described(tmp_path, "0::/a/b\n", V2.replace("{root}", "/"))) == cores


def test_the_limit_of_a_group_above_holds_too(tmp_path):
    limited(tmp_path / "unified/a/b", cpu__max="800000 100000")
    limited(tmp_path / "unified/a", cpu__max="300000 100000")
    limited(tmp_path / "unified/other", cpu__max="100000 100000")
    assert usable_cores(described(tmp_path, "0::/a/b\n", V2.replace("{root}", "/"))) == 3


@pytest.mark.parametrize(("quota", "cores"), [("400000", 4), ("-1", 16)])
def test_version_1(tmp_path, quota, cores):
    limited(tmp_path / "cpu,cpuacct/job", cpu__cfs_quota_us=quota, cpu__cfs_period_us="100000")
    groups = "5:memory:/elsewhere\n3:cpu,cpuacct:/job\n0::/\n"
    assert usable_cores(described(tmp_path, groups, V1.replace("{root}", "/") + V2.replace("{root}", "/"))) == cores


@pytest.mark.parametrize("root", ["/docker/12ab", "/docker"])
def test_a_container_sees_its_own_group_as_the_root(tmp_path, root):
    inside = "/docker/12ab".removeprefix(root)
    limited(tmp_path / f"cpu,cpuacct{inside}", cpu__cfs_quota_us="250000", cpu__cfs_period_us="100000")
    assert usable_cores(described(tmp_path, "3:cpu,cpuacct:/docker/12ab\n", V1.replace("{root}", root))) == 3


def test_a_real_group_counts(monkeypatch):
    home = Path("/sys/fs/cgroup/cpu")
    group = home / f"graphsparse-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError:
        pytest.skip("control groups of version 1 cannot be made here")
    try:
        try:
            (group / "cpu.cfs_quota_us").write_text("100000")
            (group / "tasks").write_text(str(os.getpid()))
        except OSError:
            pytest.skip("this process cannot be moved to a control group")
        assert usable_cores() == 1
    finally:
        (home / "tasks").write_text(str(os.getpid()))
        group.rmdir()


def settled(environment, monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    return leave_room(environment), environment


def test_threads_wait_asleep_and_are_as_many_as_the_cores(monkeypatch):
    ours, found = settled({}, monkeypatch)
    assert ours
    assert found == {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0", "OMP_NUM_THREADS": str(usable_cores())}


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"])
def test_a_policy_of_the_user_stays(monkeypatch, name):
    _, found = settled({name: "x"}, monkeypatch)
    assert {word: value for word, value in found.items() if word != "OMP_NUM_THREADS"} == {name: "x"}


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "MKL_NUM_THREADS"])
def test_a_number_of_the_user_stays(monkeypatch, name):
    ours, found = settled({name: "7"}, monkeypatch)
    assert not ours
    assert found[name] == "7"
    assert ("OMP_NUM_THREADS" in found) == (name == "OMP_NUM_THREADS")


def test_where_torch_is_loaded_nothing_changes():
    import torch  # noqa: F401

    environment: dict[str, str] = {}
    assert not leave_room(environment)
    assert environment == {}


def test_the_command_does_not_load_torch_before_it_has_settled_how_threads_wait():
    code = "import sys; import graphsparse.cli; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
