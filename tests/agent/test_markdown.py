"""An export is a folder of Markdown that a person can edit, and import reads it back."""

import pytest

from codots.agent.markdown import export_worlds, import_pages, read_pages
from codots.agent.store import Store
from codots.context.bank import Bank
from codots.context.rewrite import Rewrite

TEXTS = {"empty": "", "rules": "---\nnot: a head\n---\n# A heading", "umlauts": "Größe: 3\n\n  indented"}


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "agent.db") as store:
        for world, text in TEXTS.items():
            store.create(world, Bank(cap=300).settings() if world == "rules" else Rewrite(cap=40).settings())
            store.put(world, text, "import", "a test")
        yield store


def test_an_export_read_into_a_new_store_gives_the_same_contexts(store, tmp_path):
    written = export_worlds(store, tmp_path / "out")
    assert [path.name for path in written] == ["empty.md", "rules.md", "umlauts.md"]
    with Store(tmp_path / "new.db") as new:
        versions = dict(import_pages(new, read_pages(tmp_path / "out")))
        assert {world: version.number for world, version in versions.items()} == {"empty": 0, "rules": 1, "umlauts": 1}
        assert {world.name: new.head(world.name).context for world in new.worlds()} == TEXTS
        assert [w.strategy for w in new.worlds()] == [w.strategy for w in store.worlds()]


def test_an_export_keeps_the_bounds_of_rewards(tmp_path):
    with Store(tmp_path / "agent.db") as store, Store(tmp_path / "new.db") as new:
        store.create("game", Rewrite().settings(), (-1, 10))
        export_worlds(store, tmp_path / "out")
        import_pages(new, read_pages(tmp_path / "out"))
        assert (new.world("game").low, new.world("game").high) == (-1, 10)


def test_an_edited_file_becomes_the_newest_version_and_others_stay(store, tmp_path):
    for _ in range(2):  # an export replaces the files of an earlier one
        export_worlds(store, tmp_path / "out")
    path = tmp_path / "out" / "umlauts.md"
    path.write_text(path.read_text().replace("3", "4"))
    versions = dict(import_pages(store, read_pages(tmp_path / "out")))
    assert (versions["empty"], versions["rules"]) == (None, None)
    assert (versions["umlauts"].number, versions["umlauts"].source) == (2, "umlauts.md")
    assert store.head("umlauts").context == TEXTS["umlauts"].replace("3", "4")


def test_an_export_names_the_files_of_worlds_that_are_gone(store, tmp_path, codots):
    where, folder = ["--store", str(tmp_path / "agent.db")], str(tmp_path / "out")
    assert codots("context", "export", folder, *where).out == f"wrote 3 files to {folder}\n"
    codots("context", "forget", "rules", "--yes", *where)
    lines = codots("context", "export", folder, *where).out.splitlines()
    assert lines == [f"wrote 2 files to {folder}", "rules.md stays, and is of no world in this store"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("no head", r"bad\.md is not of an export; expected ---"),
        ("---\nworld: a\n---\n", "is not of an export"),
        ("---\nworld: a\nstrategy: {strategy: wipe}\n---\n", "is not of an export"),
        ("---\nworld: ../a\nstrategy: {}\n---\n", r"the world '\.\./a'"),
        ("---\nworld: umlauts\nstrategy: {}\n---\n" + "x" * 41, "41 characters; umlauts allows 40"),
        ("---\nworld: rules\nstrategy: {}\n---\n", "context of rewrite; rules has contexts of bank"),
        ("---\nworld: new\nstrategy: {cap: 3}\n---\nlong", "4 characters; new allows 3"),
    ],
)
def test_a_bad_file_is_refused_before_anything_is_written(store, tmp_path, text, line):
    folder = tmp_path / "out"
    export_worlds(store, folder)
    (folder / "a_first.md").write_text("---\nworld: first\nstrategy: {}\n---\nhello")
    (folder / "bad.md").write_text(text)
    before = store.worlds()
    with pytest.raises(ValueError, match=line):
        import_pages(store, read_pages(folder))
    assert store.worlds() == before


def test_a_folder_without_files_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"has no \.md file; expected a folder of `codots context export`"):
        read_pages(tmp_path / "nowhere")
