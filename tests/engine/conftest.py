"""A Ray cluster on this machine, shared by the tests of engines."""

import pytest


@pytest.fixture(scope="package")
def cluster():
    """Start a cluster with room for several engines at once, which engines join and leave running."""
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_prestart_worker_first_driver", "0")  # eight processes that no test needs
        ray.init("local", num_cpus=8, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()
