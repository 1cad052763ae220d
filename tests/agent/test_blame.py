"""Every line of a context is traced to the version, and so to the task, that taught it."""

import json

import pytest

from codots.agent import retention
from codots.agent.blame import blame
from codots.agent.records import Outcome, UnknownError


def taught(store, *contexts, world="repo"):
    """Let one task after another teach these contexts."""
    for context in contexts:
        task = store.start(world, "Which door?")
        store.finish(world, task.name, Outcome(1.0))
        store.append(world, store.head(world), context, "task", task.name)


def sources(store, number=None):
    """Return each line with the version and the source that blame finds."""
    return [(line.text, line.version, line.source) for line in blame(store, "repo", number)]


def test_a_line_is_of_the_task_that_first_wrote_it_in_these_words(store):
    taught(store, "red: goat", "red: goat\nblue: prize", "red: a goat\nblue: prize\n\ngreen: goat")
    assert sources(store) == [
        ("red: a goat", 3, "task-2"),
        ("blue: prize", 2, "task-1"),
        ("", 3, "task-2"),
        ("green: goat", 3, "task-2"),
    ]
    assert sources(store, 1) == [("red: goat", 1, "task-0")]
    assert sources(store, 0) == []


def test_a_line_that_moved_keeps_its_task_and_a_second_copy_is_new(store):
    taught(store, "a\nb\nc", "c\na\nb", "c\na\nb\na")
    assert sources(store) == [("c", 1, "task-0"), ("a", 1, "task-0"), ("b", 1, "task-0"), ("a", 3, "task-2")]


def test_a_line_that_was_deleted_and_taught_again_is_of_the_later_task(store):
    taught(store, "a\nb", "b", "a\nb")
    assert sources(store) == [("a", 3, "task-2"), ("b", 1, "task-0")]


def test_an_item_that_is_counted_again_keeps_its_task(store):
    taught(store, "[1 +0 -0] a", "[1 +1 -0] a\n[2 +0 -0] b", "[1 +2 -0] a\n[2 +0 -0] c")
    assert [source for _, _, source in sources(store)] == ["task-0", "task-2"]


def test_lines_that_a_rollback_brings_back_are_of_their_first_tasks(store):
    taught(store, "a\nb", "planted")
    store.rollback("repo", 1)
    taught(store, "a\nb\nc")
    assert sources(store) == [("a", 1, "task-0"), ("b", 1, "task-0"), ("c", 4, "task-2")]


def test_imports_and_forks_are_named(store):
    taught(store, "a")
    store.put("repo", "a\nb", "import", "repo.md")
    store.fork("repo", "other")
    assert [(line.cause, line.source) for line in blame(store, "repo")] == [("task", "task-0"), ("import", "repo.md")]
    assert {(line.cause, line.source) for line in blame(store, "other")} == {("fork", "repo, version 2")}


def test_what_was_pruned_may_have_had_a_line_before(store):
    taught(store, "a", "a\nb", "a\nb\nc")
    retention.prune(store, "repo", 2)
    assert [(line.text, line.version, line.certain) for line in blame(store, "repo")] == [
        ("a", 2, False),
        ("b", 2, False),
        ("c", 3, True),
    ]
    with pytest.raises(UnknownError, match="repo has no version 1"):
        blame(store, "repo", 1)


def test_the_command_prints_each_line_with_its_task(store, where, codots):
    taught(store, "a", "a\nthe [bold] one")
    shown = codots("context", "blame", "repo", "--store", where).out
    assert all(part in shown for part in ("task-0", "task-1", "the [bold] one"))
    rows = json.loads(codots("context", "blame", "repo", "--json", "--store", where).out)
    assert [row["source"] for row in rows] == ["task-0", "task-1"]
    assert rows[0] == {"text": "a", "version": 1, "cause": "task", "source": "task-0", "certain": True}
