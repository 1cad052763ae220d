"""A store loses nothing that it has acknowledged, overwrites nothing, and keeps one chain of versions per world."""

import asyncio
import math
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from codots.agent import retention, rows
from codots.agent.changes import Joining, Said
from codots.agent.database import SETTINGS
from codots.agent.recorder import Recorder
from codots.agent.records import MAX_TEXT, ConflictError, Outcome, StaleError, UnknownError, diff
from codots.agent.schema import SCHEMA, metadata, tasks
from codots.agent.sql import sa
from codots.agent.store import Store
from codots.context.rewrite import Trajectory, Turn
from tests.agent.conftest import REWRITE

SAID = (Turn("2 + 2?", "5"), Turn("no", "4"))


def ended(store, world="repo", **told):
    """Start and finish a task, and return its name."""
    task = store.start(world, "2 + 2?", "Add.")
    store.finish(world, task.name, Outcome(**{"reward": 0.5, "turns": SAID} | told))
    return task.name


def wanted(name, key="key"):
    """A task to join."""
    return Joining("repo", name, key, "Add.", "2 + 2?")


def join(store, task):
    """Join a task as a chat does, and return it."""
    (joined,) = store.make_all([task])
    return joined


def learn(store, world="repo"):
    """Run the next update: it counts the finishes."""
    head, task, _ = store.due(world)
    return store.append(world, head, f"{head.learned + 1} tasks", "task", task.name, model="m", tokens=2)


def chain(store, world="repo"):
    """Return number, parent and finishes of each version."""
    return [(version.number, version.parent, version.learned) for version in store.history(world)]


def test_a_finished_task_is_learned_from_once_and_in_order(store):
    assert store.due("repo") is None
    first, second = ended(store, feedback="slow"), ended(store, reward=None, outcome="done")
    assert store.worlds_due() == ["repo"]
    head, task, trajectory = store.due("repo")
    assert (head.number, task.name, task.finish.reward) == (0, first, 0.5)
    assert trajectory == Trajectory("Add.", SAID, "", 0.5, "slow")
    assert learn(store).source == first
    assert store.due("repo")[1:] == (store.task("repo", second), Trajectory("Add.", SAID, "done", None, ""))
    learn(store)
    assert (store.due("repo"), store.worlds_due()) == (None, [])
    assert chain(store) == [(0, None, 0), (1, 0, 1), (2, 1, 2)]
    assert store.head("repo").context == "2 tasks"


def test_a_chat_without_a_name_and_named_tasks_of_the_same_prompt_stay_apart(store):
    named = join(store, wanted("issue-1")).task
    chat = join(store, wanted(None)).task
    assert chat.name != named.name
    join(store, wanted("issue-2"))
    store.finish("repo", "issue-2", Outcome(1.0))
    assert join(store, wanted(None)).task == chat
    assert join(store, wanted("issue-1")).task == named


def test_the_task_of_a_chat_is_found_by_an_index(tmp_path):
    with Store(tmp_path / "agent.db") as store, store.read() as c:
        of_key = rows.TASKS.where(tasks.c.world_id == 1, tasks.c.key == "key").order_by(tasks.c.number.desc())
        text = str(of_key.limit(1).compile(c, compile_kwargs={"literal_binds": True}))
        plan = " ".join(str(row) for row in c.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}"))
    assert "task_key (world_id=? AND key=?)" in plan


def test_a_nul_in_a_text_is_replaced(store):
    task = store.start("repo", "a\0b", "")
    store.record("repo", task.name, 0, Turn("\0", "x\0"))
    store.finish("repo", task.name, Outcome(1.0, "bad\0byte"))
    head, found, trajectory = store.due("repo")
    assert (found.description, trajectory.turns, trajectory.feedback) == (
        "a\ufffdb",
        (Turn("\ufffd", "x\ufffd"),),
        "bad\ufffdbyte",
    )
    store.append("repo", head, "a\0", "task", task.name)
    assert store.head("repo").context == "a\ufffd"


def test_forget_says_when_another_process_keeps_the_log(tmp_path, monkeypatch):
    monkeypatch.setattr("codots.agent.database.SETTINGS", (*SETTINGS[:-1], "busy_timeout=100"))
    with Store(tmp_path / "agent.db") as store, Store(tmp_path / "agent.db") as other:
        store.create("repo", REWRITE)
        with other.read() as c:
            c.execute(sa.select(tasks)).all()
            store.create("more", REWRITE)
            with pytest.raises(ValueError, match=r"another process reads .*agent\.db, whose log may keep deleted text"):
                retention.forget(store, "repo")
        retention.forget(store, "repo")
        assert [world.name for world in store.worlds()] == ["more"]


def test_a_hidden_reward_is_stored_but_not_shown_to_the_update(store):
    name = ended(store, revealed=False)
    assert store.task("repo", name).finish.reward == 0.5
    assert store.due("repo")[2].reward is None


def test_a_version_only_follows_the_newest(store):
    ended(store)
    head = store.head("repo")
    learn(store)
    with pytest.raises(StaleError):
        store.append("repo", head, "late", "task", "task-0")
    assert store.head("repo").context == "1 tasks"


def test_clients_of_one_world_leave_one_chain_and_lose_no_finish(where, store):
    """Each finishes tasks while two others, in stores of their own, race to run the updates."""
    clients, each, total = 8, 5, 40
    over = threading.Event()

    def finish(client):
        for _ in range(each):
            ended(store)

    def update(_):
        with Store(where) as own:
            while own.head("repo").learned < total and not over.is_set():
                try:
                    learn(own)
                except (StaleError, TypeError):  # nothing due
                    continue

    with ThreadPoolExecutor(clients + 2) as pool:
        updating = [pool.submit(update, i) for i in range(2)]
        try:
            list(pool.map(finish, range(clients)))
            for future in updating:
                future.result(120)
        finally:
            over.set()
    assert chain(store) == [(0, None, 0)] + [(i, i - 1, i) for i in range(1, total + 1)]
    assert sorted(task.finish.number for task in store.tasks("repo")) == list(range(1, total + 1))


def test_rollback_adds_a_version_and_keeps_what_was_learned_counted(store):
    for _ in range(2):
        ended(store)
        learn(store)
    new = store.rollback("repo", 1)
    assert (new.number, new.parent, new.cause, new.source) == (3, 2, "rollback", "version 1")
    assert (new.context, new.learned, store.due("repo")) == ("1 tasks", 2, None)
    assert store.version("repo", 2).context == "2 tasks"
    assert diff(store.version("repo", 2), new).splitlines()[2:] == ["@@ -1 +1 @@", "-2 tasks", "+1 tasks"]


def test_a_fork_starts_with_the_context_and_goes_its_own_way(store):
    ended(store)
    learn(store)
    store.fork("repo", "other")
    ended(store, "other")
    learn(store, "other")
    versions = store.history("other")
    assert [(v.cause, v.source, v.context) for v in versions[:2]] == [
        ("start", "", ""),
        ("fork", "repo, version 1", "1 tasks"),
    ]
    assert (versions[2].cause, store.head("repo").number) == ("task", 1)
    with pytest.raises(ConflictError, match="'other' exists"):
        store.fork("repo", "other")


def test_a_turn_that_is_said_again_replaces_the_later_ones(store):
    task = store.start("repo", "2 + 2?", name="sum")
    for position, turn in enumerate((*SAID, Turn("yes", "bye"))):
        store.record("repo", "sum", position, turn)
    store.record("repo", "sum", 1, Turn("no", "3"))
    assert store.turns("repo", task.name) == (SAID[0], Turn("no", "3"))


def test_of_a_turn_that_is_too_long_the_beginning_and_the_end_are_kept(store):
    long = f"begin{'x' * MAX_TEXT}end"
    name = ended(store, turns=(Turn(long, long),), outcome=long)
    for text in (*vars(store.turns("repo", name)[0]).values(), store.task("repo", name).finish.outcome):
        assert (text[:6], text[-4:], len(text) <= MAX_TEXT) == ("beginx", "xend", True)
        assert "\n[108 characters left out]\n" in text


def test_turns_that_come_at_once_share_transactions_and_are_refused_one_by_one(store, monkeypatch):
    done, names = ended(store, turns=()), [store.start("repo", "2 + 2?").name for _ in range(20)]
    written, make_all = [], store.make_all
    monkeypatch.setattr(store, "make_all", lambda changes: written.append(len(changes)) or make_all(changes))

    async def record():
        recorder = Recorder(store)
        said = [Said("repo", name, 0, SAID[0], 1.0) for name in [*names, done]]
        return await asyncio.gather(*map(recorder.make, said), return_exceptions=True)

    *recorded, refused = asyncio.run(record())
    assert (recorded, written) == ([None] * 20, [21])
    assert isinstance(refused, ConflictError)
    assert [store.turns("repo", name) for name in [*names, done]] == [SAID[:1]] * 20 + [()]


def test_requests_that_come_at_once_join_one_new_task(store):
    async def join():
        recorder = Recorder(store)
        return await asyncio.gather(*(recorder.make(wanted(*of)) for of in [("sum",), ("sum",), (None,), (None,)]))

    named, again, chat, same = [joined.task.number for joined in asyncio.run(join())]
    assert (named, chat) == (again, same)
    assert len(store.tasks("repo")) == 2


def test_turns_that_a_broken_store_did_not_take_are_reported_each_and_the_next_one_is_taken(store):
    store.start("repo", "2 + 2?", name="sum")
    good = store.make_all

    async def record():
        recorder, said = Recorder(store), Said("repo", "sum", 0, SAID[0], 1.0)
        store.make_all = lambda changes: 1 / 0
        failed = await asyncio.gather(recorder.make(said), recorder.make(said), return_exceptions=True)
        store.make_all = good
        await recorder.make(said)
        return failed

    assert [type(error) for error in asyncio.run(record())] == [ZeroDivisionError] * 2
    assert store.turns("repo", "sum") == SAID[:1]


def test_a_clock_that_is_set_back_loses_no_turn(store):
    store.start("repo", "2 + 2?", name="sum")
    for position, turn, asked in ((0, SAID[0], 100.0), (1, SAID[1], 99.9)):
        store.record("repo", "sum", position, turn, asked)
    assert store.turns("repo", "sum") == SAID


def test_a_reply_that_comes_late_replaces_no_turn_that_was_asked_for_later(store):
    store.start("repo", "2 + 2?", name="sum")
    for position, turn, asked in ((0, SAID[0], 2.0), (1, SAID[1], 3.0), (0, Turn("2 + 2?", "late"), 1.0)):
        store.record("repo", "sum", position, turn, asked)
    assert store.turns("repo", "sum") == SAID


@pytest.mark.parametrize(
    ("line", "call"),
    [
        ("unknown world 'rep'.*nearest is 'repo'", lambda s: s.head("rep")),
        ("unknown task of repo 'task-7'.*nearest is 'task-0'", lambda s: s.finish("repo", "task-7", Outcome(1.0))),
        ("'task-0' of repo is finished", lambda s: s.finish("repo", "task-0", Outcome(1.0))),
        ("reward is nan", lambda s: s.finish("repo", "open", Outcome(math.nan))),
        ("reward is 1.5; expected a number from 0 to 1", lambda s: s.finish("repo", "open", Outcome(1.5))),
        ("reward is True", lambda s: s.finish("repo", "open", Outcome(True))),
        ("feedback has 10,000,000 characters", lambda s: s.finish("repo", "open", Outcome(1.0, "x" * 10_000_000))),
        ("has no version 9; expected one from 0 to 0", lambda s: s.rollback("repo", 9)),
        ("the world '../up'", lambda s: s.create("../up", REWRITE)),
        ("the bounds of rewards are .1, 0.", lambda s: s.create("new", REWRITE, (1, 0))),
        ("the task 'open' of repo exists", lambda s: s.start("repo", "again", name="open")),
        ("names that start with task-", lambda s: s.start("repo", "again", name="task-9")),
        ("keep 0 versions", lambda s: retention.prune(s, "repo", 0)),
    ],
)
def test_bad_input_is_one_line_and_changes_nothing(store, line, call):
    ended(store)
    store.start("repo", "sum", name="open")
    before = store.worlds(), store.tasks("repo"), store.history("repo")
    with pytest.raises(ValueError, match=line) as error:
        call(store)
    assert "\n" not in str(error.value)
    assert (store.worlds(), store.tasks("repo"), store.history("repo")) == before


def test_prune_keeps_the_newest_versions_and_what_is_not_learned_yet(store):
    names = [ended(store) for _ in range(4)]
    for _ in range(3):
        learn(store)
    assert retention.prune(store, "repo", 2) == (2, 1, 2)
    assert chain(store) == [(2, 1, 2), (3, 2, 3)]
    assert [len(store.turns("repo", name)) for name in names] == [0, 2, 2, 2]
    assert store.task("repo", names[0]).finish.reward == 0.5
    assert learn(store).number == 4


def test_a_forgotten_world_is_gone_and_can_be_made_again(store, where, tmp_path):
    ended(store, feedback="the password is swordfish")
    retention.forget(store, "repo")
    with pytest.raises(UnknownError, match="unknown world 'repo'; there is none yet"):
        store.head("repo")
    if not isinstance(where, str):
        assert b"swordfish" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())
    store.create("repo", REWRITE)
    assert (store.head("repo").number, store.tasks("repo")) == (0, [])


def test_migrations_end_in_the_tables_of_the_schema(store):
    config = Config()
    config.set_main_option("script_location", "codots.agent:migrations")
    config.set_main_option("path_separator", "os")
    assert ScriptDirectory.from_config(config).get_current_head() == SCHEMA
    with store.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_a_store_of_a_newer_schema_is_refused_and_unchanged(where, store):
    with store.write() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ValueError, match="has schema 9999, of a newer codots; this one knows up to"):
        Store(where)


def test_a_url_of_postgres_names_the_same_store(postgres):
    url = postgres()
    with Store(url) as store:
        store.create("repo", REWRITE)
    with Store(url.replace("postgresql://", "postgres://")) as store:
        assert [world.name for world in store.worlds()] == ["repo"]


def test_a_file_that_is_no_store_is_refused(tmp_path):
    (tmp_path / "notes.db").write_text("remember the milk " * 1000)
    with pytest.raises(ValueError, match=r"notes\.db cannot be opened: file is not a database"):
        Store(tmp_path / "notes.db")
    with pytest.raises(ValueError, match=r"no store at .*agents\.db.*nearest is .*notes\.db"):
        Store(tmp_path / "agents.db", create=False)
    with pytest.raises(ValueError, match="there is no folder"):
        Store(tmp_path / "none" / "agent.db")
    with pytest.raises(ValueError, match="expected a file or postgresql://"):
        Store("mysql://host/agent")


def test_a_backup_is_a_whole_store_though_others_write(tmp_path):
    with Store(tmp_path / "agent.db") as store:
        store.create("repo", REWRITE)
        ended(store)
        learn(store)
        store.backup(tmp_path / "copy.db")
        ended(store)
        with pytest.raises(ValueError, match=r"copy\.db exists"):
            store.backup(tmp_path / "copy.db")
    with Store(tmp_path / "copy.db", create=False) as copy:
        assert (chain(copy), len(copy.tasks("repo"))) == ([(0, None, 0), (1, 0, 1)], 1)


CLIENT = """
import sys
from codots.agent.records import Outcome
from codots.agent.store import Store
store = Store(sys.argv[1])
while True:
    task = store.start("repo", "2 + 2?")
    store.finish("repo", task.name, Outcome(0.5))
    print(task.name, flush=True)
"""


def test_no_acknowledged_finish_is_lost_when_the_process_is_killed(where, store):
    said = []
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", CLIENT, str(where)], stdout=subprocess.PIPE, text=True) as client:
            said += [client.stdout.readline().strip() for _ in range(5)]
            client.send_signal(signal.SIGKILL)
            said += client.stdout.read().split()
    with Store(where) as again:
        finished = {task.name for task in again.tasks("repo", 10**6) if task.finish}
        assert set(said) <= finished
        assert again.worlds_due() == ["repo"]
        for _ in finished:
            learn(again)
        assert again.due("repo") is None
        assert chain(again)[-1] == (len(finished), len(finished) - 1, len(finished))
