"""Open a run folder, and see all that is in it."""

from codots.runs.folder import open_run


def opened(folder, config, resume=False):
    """Open a run and let go of it."""
    with open_run(folder, config, resume=resume) as run:
        return run


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
