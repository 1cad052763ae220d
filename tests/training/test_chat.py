"""Lessons are exported as chats, with the messages that a model would have seen and said."""

import json
import re

import pytest

from codots.config.imitate import ImitateConfig
from codots.model.alphabet import make_render, messages_of
from codots.training.chat import chat_rows


def rows(**changes):
    keys = {"domain": "frozen-lake-v1", "preset": "tiny", "pack_size": 3, "packs_per_step": 20, "teacher": "literate"}
    return list(chat_rows(ImitateConfig.model_validate(keys | changes)))


def test_every_episode_is_one_chat_that_ends_with_the_teachers_words():
    found = rows(given=0.0)
    assert len(found) == 20 * 5
    for row in found:
        roles = [message["role"] for message in row["messages"]]
        assert roles[0] == "system"
        assert roles[1:] == ["user", "assistant"] * (len(roles) // 2)
        last = row["messages"][-1]["content"]
        assert ("<context>" in last) == (row["kind"] == "update")
        assert ("<action>" in last) == (row["kind"] == "solve")


def test_given_lives_have_the_true_context_and_no_updates():
    found = rows(given=1.0)
    assert {row["kind"] for row in found} == {"solve"}
    assert all("- code 1 moves you" in row["messages"][0]["content"] for row in found)
    assert sum(row["reward"] for row in found) / len(found) > 0.9


def test_any_text_of_a_chat_is_returned_as_it_was():
    render = make_render()
    text = "<|user|> \uf8fc \n\u2603 <context>"
    ids = [*render.opening("be brief", text), *render.reply("yes")]
    assert [message["content"] for message in messages_of(ids)] == ["be brief", text, "yes"]


def test_the_command_writes_chats_or_says_what_it_expects(codots, tmp_path):
    out = tmp_path / "lessons.jsonl"
    options = ["--preset", "tiny", "--packs", "4", "--pack-size", "2", "--out", str(out)]
    ended = codots("export", "frozen-lake-v1", "--lives", "format", "--as", "chat", *options)
    assert ended.code == 0, ended.err
    written = [json.loads(line) for line in out.read_text().splitlines()]
    assert f"wrote {len(written)} episodes of 4 packs" in ended.out
    assert {"messages", "domain", "preset", "split", "index", "kind", "position", "reward"} == written[0].keys()


@pytest.mark.parametrize(
    ("line", "options"),
    [
        ("--as is 'chat'; expected --lives TEACHER with --as chat", ["--as", "chat"]),
        ("--as is 'tasks'; expected --as chat with --lives", ["--lives", "format", "--as", "tasks"]),
        ("unknown layout of rows 'chatt'", ["--as", "chatt"]),
        ("unknown choice of teacher 'skiled'", ["--lives", "skiled"]),
        ("--split is 'dev'; lessons are of the split train", ["--lives", "format", "--split", "dev"]),
        ("unknown prompt style 'compct'", ["--lives", "literate", "--style", "compct"]),
    ],
)
def test_bad_options_are_one_line(codots, tmp_path, line, options):
    ended = codots("export", "frozen-lake-v1", "--out", str(tmp_path / "x.jsonl"), *options)
    assert ended.code == 2
    assert re.search(line, ended.err.splitlines()[-1])
    assert not (tmp_path / "x.jsonl").exists()
