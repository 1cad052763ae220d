"""The base class of domains: defaults of optional methods, and environments of equal tasks."""

from codots.core.rng import stream
from codots.domains.registry import make_pack, register
from tests.toy import Guess


def test_equal_tasks_open_equal_environments():
    task = make_pack("frozen-lake-v1", "easy", "train", 0, 1).tasks[0]
    assert task.env().observe() == task.env().observe()


def test_optional_methods_of_a_domain_have_defaults(registry):
    domain = register(Guess())
    pack = make_pack("guess-v0", "many", "train", 0, 1)
    task, world = pack.tasks[0], pack.world
    assert domain.make_memory(world) is None
    assert domain.oracle_context(world, "natural") == ""
    assert (domain.floor(task), domain.ceiling(task)) == domain.bounds == (0.0, 1.0)
    assert domain.facts(world, "anything") is None
    assert domain.draw(None) is None
    assert domain.twin(world, stream("twin")).dials == world.dials
