"""A Ray cluster on this machine, shared by the tests of engines."""

import pytest


@pytest.fixture(scope="package")
def cluster():
    """Start a cluster with room for several engines at once, which engines join and leave running."""
    import ray

    ray.init("local", num_cpus=8, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()
