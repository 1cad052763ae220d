"""The commands of `codots context` read and change a store; an error is one line and changes nothing."""

import json
import subprocess
import sys

import pytest

from codots.agent.records import Outcome
from codots.agent.store import Store
from codots.context.rewrite import Rewrite


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder with a store of one world that two models have written to."""
    monkeypatch.chdir(tmp_path)
    with Store("agent.db") as store:
        store.create("repo", Rewrite(cap=200).settings())
        for text, model in (("one", "old@1"), ("one\ntwo", "new@2")):
            task = store.start("repo", "Do it.")
            store.finish("repo", task.name, Outcome(1.0))
            store.append("repo", store.head("repo"), text, "task", task.name, model=model, tokens=len(text))
    return tmp_path


def test_worlds_and_versions_are_listed_and_those_of_an_older_model_marked(home, codots):
    worlds = json.loads(codots("context", "list", "--json").out)
    assert [(w["name"], w["tasks"], w["finished"], w["head"]["number"]) for w in worlds] == [("repo", 2, 2, 2)]
    assert "repo" in codots("context", "list").out
    versions = codots("context", "list", "repo").out
    assert ("old@1 (older)" in versions, "new@2 (older)" in versions) == (True, False)
    codots("context", "rollback", "repo", "1")
    versions = codots("context", "list", "repo").out
    assert (versions.count("old@1 (older)"), versions.count("new@2 (older)")) == (2, 0)


def test_a_context_is_shown_compared_and_rolled_back(home, codots):
    assert codots("context", "show", "repo").out == "one\ntwo\n"
    assert codots("context", "show", "repo", "--version", "1").out == "one\n"
    assert codots("context", "diff", "repo", "1", "2").out.splitlines()[-1] == "+two"
    assert codots("context", "rollback", "repo", "1").out == "repo: version 3 has the context of version 1\n"
    assert json.loads(codots("context", "show", "repo", "--json").out)["cause"] == "rollback"


def test_contexts_are_exported_imported_pruned_and_forgotten(home, codots):
    assert codots("context", "export", "notes").out == "wrote 1 files to notes\n"
    assert codots("context", "import", "notes").out == "repo: unchanged\n"
    assert codots("context", "import", "notes", "--store", "new.db").out == "repo: version 1\n"
    assert codots("context", "backup", "copy.db").out == "wrote copy.db\n"
    pruned = codots("context", "prune", "repo", "--keep", "1").out
    assert pruned == "repo: deleted 2 versions and the turns of 0 tasks, 1 versions are left\n"
    asked = codots("context", "forget", "repo")
    assert (asked.code, asked.err) == (2, "codots: this deletes repo for good: 1 versions and 2 tasks; give --yes\n")
    assert codots("context", "forget", "repo", "--yes").out == "repo is forgotten\n"
    assert codots("context", "list", "--json").out == "[]\n"
    assert len(json.loads(codots("context", "list", "repo", "--json", "--store", "copy.db").out)) == 3


@pytest.mark.parametrize(
    ("line", "args"),
    [
        ("unknown world 'rep'; expected one of repo; the nearest is 'repo'", ["show", "rep"]),
        ("no store at agents.db; expected a file that an agent has made; the nearest is 'agent.db'",
         ["list", "--store", "agents.db"]),
        ("repo has no version 7; expected one from 0 to 2", ["rollback", "repo", "7"]),
        ("nowhere has no .md file; expected a folder of `codots context export`",
         ["import", "nowhere", "--store", "new.db"]),
        ("Invalid value for 'b': Input should be a valid integer, unable to parse string as an integer, got 'b'; see "
         "codots context diff --help", ["diff", "repo", "1", "b", "--store", "agent.db"]),
        ("agent.db exists; expected the name of a new file", ["backup", "agent.db"]),
    ],
)  # fmt: skip
def test_an_error_is_one_line_and_makes_no_file(home, codots, line, args):
    before = sorted(path.name for path in home.iterdir())
    ended = codots("context", *args)
    assert (ended.code, ended.out, ended.err) == (2, "", f"codots: {line}\n")
    assert sorted(path.name for path in home.iterdir()) == before


@pytest.mark.parametrize(
    ("package", "words", "line"),
    [
        ("sqlalchemy", ["context", "list"], "a store needs sqlalchemy: pip install 'codots[agent]'"),
        ("fastapi", ["serve", "base"], "codots serve needs fastapi: pip install 'codots[serve]'"),
        ("mcp", ["mcp", "base"], "codots mcp needs mcp: pip install 'codots[mcp]'"),
    ],
)
def test_a_missing_extra_is_one_line_that_names_it(tmp_path, package, words, line):
    code = f"import sys; sys.modules[{package!r}] = None; from codots.cli.main import main; main()"
    command = [sys.executable, "-c", code, *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (2, f"codots: {line}\n")
