"""What becomes of the answers and errors of actors, without a cluster."""

from types import SimpleNamespace

import pytest
import ray
from ray.exceptions import ActorUnavailableError, ObjectStoreFullError, OutOfMemoryError

from codots.core.processes import DeadError
from codots.engine.crew import Call, _answer_to

LOW = """1 worker(s) were killed due to the node running low on memory.
Memory on the node (IP: 10.0.0.1) was 22.91GB used / 23.54GB limit (0.973151).
Refer to the documentation on how to address the out of memory issue: https://docs.ray.io."""


@pytest.fixture
def answer(monkeypatch):
    """Let Ray raise an error in place of an answer, and return what becomes of it."""

    def answer(error):
        def get(ref):
            raise error

        monkeypatch.setattr(ray, "wait", lambda refs, timeout: (refs, []))
        monkeypatch.setattr(ray, "get", get)
        return _answer_to(Call(0, "rollout", (), actor=SimpleNamespace(_actor_id=b"")))

    return answer


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (OutOfMemoryError(LOW), "killed due to the node running low on memory"),
        (ActorUnavailableError("RpcError: socket closed", None), "its process or machine cannot be reached"),
    ],
)
def test_an_actor_without_memory_or_connection_is_dead_with_this_cause(answer, error, cause):
    """So that a sampler is replaced, and the learner's error says how to go on."""
    with pytest.raises(DeadError) as death:
        answer(error)
    assert str(death.value) == cause


def test_a_full_object_store_is_an_error_of_one_line_with_its_cause(answer):
    kind, (error, message, _) = answer(
        ObjectStoreFullError("Failed to put object a1 in object store because it\nis full.")
    )
    assert (kind, error) == ("error", RuntimeError)
    assert message.startswith("rollout failed: Failed to put object a1 in object store because it is full. ")
    assert len(message.splitlines()) == 1
