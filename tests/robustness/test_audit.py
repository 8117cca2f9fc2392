"""The look-up of known vulnerabilities in `.ci/audit`: what it says and how it ends, without a network."""

import importlib.machinery
import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

FILE = Path(__file__).parents[2] / ".ci" / "audit"


@pytest.fixture
def audit(monkeypatch):
    """The script, and what pip-audit answers it."""
    if not FILE.exists():
        pytest.skip("the script is not here: it is no part of the package")
    loader = importlib.machinery.SourceFileLoader("ci_audit", str(FILE))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("ci_audit", loader))
    loader.exec_module(module)

    def answering(text):
        monkeypatch.setattr(module.subprocess, "run", lambda *words, **how: SimpleNamespace(stdout=text))
        return module

    return answering


def found(**more):
    return {"name": "a", "version": "1", "vulns": [], **more}


HOLE = {"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["2"]}


def test_a_known_vulnerability_fails_unless_it_is_explained(audit, capsys):
    module = audit(json.dumps({"dependencies": [found(vulns=[HOLE]), found(name="b")]}))
    assert module.main() == 1
    assert "2 of 2 pinned packages were looked up" in (said := capsys.readouterr().out)
    assert "a 1: PYSEC-1, mended in 2; NOT EXPLAINED" in said
    module.EXPLAINED["CVE-1"] = "only with a server, which nobody starts"
    assert module.main() == 0
    assert "no known vulnerability that is not explained" in capsys.readouterr().out


@pytest.mark.parametrize("answer", ["", "no network", "[]", '{"dependencies": [{"name": "a", "skip_reason": "no"}]}'])
def test_without_a_network_it_says_so_and_does_not_fail(audit, capsys, answer):
    assert audit(answer).main() == 0
    assert "cannot be reached" in capsys.readouterr().out
