"""Helpers to open run folders and read their files."""

from codots.config.schema import fingerprint
from codots.runs.folder import MUTABLE_KEYS, open_run


def open_and_close(folder, config, resume=False):
    """Open a run and release its lock."""
    with open_run(folder, config.to_dict(), resume=resume) as run:
        return run


def recipe_hash(config):
    """Return the fingerprint that a run stores in its checkpoints."""
    return fingerprint(config.to_dict(), without=MUTABLE_KEYS)


def tree(folder):
    """Return all files of a folder by path, with their content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
