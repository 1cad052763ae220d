"""A small disk for tests of full disks."""

import shutil
import subprocess
from contextlib import contextmanager


@contextmanager
def mounted(folder, size):
    """Mount a tmpfs of a size such as `4m` and yield its folder, or None where mounting is not permitted."""
    folder.mkdir()
    mount = shutil.which("mount")
    done = mount and subprocess.run([mount, "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True)
    if not done or done.returncode:
        yield None
        return
    try:
        yield folder
    finally:  # also after a test that fails, so that pytest can delete its folders
        subprocess.run(["umount", "-l", folder], check=True)
