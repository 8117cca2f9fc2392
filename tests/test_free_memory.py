"""Free memory: what the machine has left, and what control groups leave of it; sizes as people write them."""

from __future__ import annotations

import pytest

from graphsparse.free_memory import free_memory, memory_size, taken_memory


@pytest.fixture
def machine(tmp_path):
    """A process in the group ``/jobs/one`` of a machine with 10 MB left."""

    def make(version, **files):
        process, mount = tmp_path / "self", tmp_path / "groups"
        group = mount / "jobs" / "one"
        process.mkdir()
        group.mkdir(parents=True)
        (tmp_path / "meminfo").write_text("MemTotal: 20000 kB\nMemAvailable: 10000 kB\n")
        kind = "cgroup2 cgroup2 rw" if version == 2 else "cgroup cgroup rw,memory"
        (process / "cgroup").write_text("0::/jobs/one\n" if version == 2 else "3:memory:/jobs/one\n")
        (process / "mountinfo").write_text(f"30 1 0:26 / {mount} rw - {kind}\n")
        for name, text in files.items():
            where = mount / "jobs" if name.startswith("above_") else group
            (where / name.removeprefix("above_").replace("__", ".")).write_text(text)
        return free_memory(process, tmp_path / "meminfo")

    return make


def test_without_a_limit_it_is_what_the_machine_has_left(machine):
    assert machine(2, memory__max="max\n", memory__current="5") == 10_240_000


@pytest.mark.parametrize(
    ("version", "limit", "use", "cached"),
    [
        (2, "memory__max", "memory__current", "inactive_file"),
        (1, "memory__limit_in_bytes", "memory__usage_in_bytes", "total_inactive_file"),
    ],
)
def test_a_control_group_limits_it_and_pages_of_files_can_be_given_up(machine, version, limit, use, cached):
    files = {limit: "5000000", use: "3000000", "memory__stat": f"anon 7\n{cached} 1000000\n"}
    assert machine(version, **files) == 3_000_000


def test_a_group_above_limits_it_too(machine):
    assert machine(2, above_memory__max="400", above_memory__current="100", memory__max="max") == 300


def test_elsewhere_a_size_is_assumed(tmp_path):
    assert free_memory(tmp_path, tmp_path / "none") == 4 * 10**9
    assert taken_memory() >= 0


@pytest.mark.parametrize(
    ("size", "told"), [("4GB", 4 * 10**9), ("4 gib", 4 << 30), ("1.5k", 1500), ("7", 7), (12, 12), (2e6, 2 * 10**6)]
)
def test_sizes_as_people_write_them(size, told):
    assert memory_size(size) == told


@pytest.mark.parametrize("size", ["", "GB", "4 apples", "-1", 0, -5, float("nan"), float("inf"), "0"])
def test_what_is_no_size_is_refused(size):
    with pytest.raises(ValueError, match="memory must be a number of bytes or a text such as '4GB'"):
        memory_size(size)
    with pytest.raises(TypeError, match="got bool"):
        memory_size(True)
