"""A disk that is soon full."""

import shutil
import subprocess
from contextlib import contextmanager


@contextmanager
def mounted(folder, size):
    """Mount a disk of this size, such as `4m`; where that is not permitted there is none."""
    folder.mkdir()
    mount = shutil.which("mount")
    done = mount and subprocess.run([mount, "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True)
    if not done or done.returncode:
        yield None
        return
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)
