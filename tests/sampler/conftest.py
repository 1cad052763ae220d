"""Fixtures of the sampler tests."""

import pytest

from tests.sampler.server import Server


@pytest.fixture
def serve():
    servers = []

    def start(*script):
        servers.append(Server(*script))
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
