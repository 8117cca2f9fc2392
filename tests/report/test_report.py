"""Tables and plots."""

import math
import subprocess

import pytest

from graphsparse.report import Curve, interval, markdown, plot_sparsity, table


def test_interval_without_a_half_width_shows_the_mean_alone():
    assert interval(0.5, math.nan) == "0.50"
    assert interval(0.5, None, scale=100, digits=0) == "50"
    assert interval(0.5, 0.25, digits=1) == "0.5 ± 0.2"


def test_table_and_markdown_hold_every_cell():
    columns, rows = ["method", "a", "b"], [["teddy", "1", "2"], ["random", "3", "4"]]
    assert table("title", columns, rows).row_count == 2
    assert markdown(columns, rows).splitlines()[-1] == "| random | 3 | 4 |"


@pytest.mark.parametrize(("suffix", "magic"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")])
def test_plot_is_written_whole_in_the_format_of_its_suffix(tmp_path, suffix, magic):
    curve = Curve("teddy", [0.1, 0.5], [0.8, 0.7], [0.01, math.nan])
    path = plot_sparsity(tmp_path / f"plot{suffix}", [curve], dense=(0.81, math.nan), title="a plot")
    assert path.read_bytes().startswith(magic)
    assert [p.name for p in tmp_path.iterdir()] == [f"plot{suffix}"]


def test_the_commit_is_that_of_our_own_checkout_and_of_no_other(tmp_path, monkeypatch):
    from graphsparse.report import record

    assert record._git("rev-parse", "HEAD") is None or len(record._git("rev-parse", "HEAD")) == 40
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    installed = tmp_path / "site-packages" / "record.py"
    installed.parent.mkdir()
    installed.write_text("")
    monkeypatch.setattr(record, "__file__", str(installed))  # an environment inside somebody else's repository
    assert record._git("rev-parse", "HEAD") is None
