"""A small disk, for tests of a full disk."""

import shutil
import subprocess
from contextlib import contextmanager


@contextmanager
def mounted(folder, size):
    """Mount a tmpfs of this size, such as `4m`; yield None if that is not permitted."""
    folder.mkdir()
    mount = shutil.which("mount")
    done = mount and subprocess.run([mount, "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True)
    if not done or done.returncode:
        yield None
        return
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)
