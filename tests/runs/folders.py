"""Open a run folder, and see all that is in it."""

from codots.config.schema import fingerprint
from codots.runs.folder import ELSEWHERE, open_run


def opened(folder, config, resume=False):
    """Open a run and let go of it."""
    with open_run(folder, config.said(), resume=resume) as run:
        return run


def mark(config):
    """Hash what a recipe says, as a run marks its checkpoints."""
    return fingerprint(config.said(), without=ELSEWHERE)


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
