"""What several tests of agents compare with: a scripted model that learns, and a life of training."""

import json

from codots.agent import rows
from codots.agent.schema import transcripts
from codots.agent.sql import sa
from codots.core.deadline import run_loop
from codots.domains.registry import make_pack
from codots.engine.plan import Plan
from codots.engine.worker import Worker
from codots.model.load import model_folder
from codots.rollout.life import Job, rollouts
from codots.rollout.profile import load_profile
from codots.rollout.steps import Own
from tests.sampler.server import good


def learner(request):
    """Answer tasks, and in an update note how many updates there have been."""
    system, user = (message["content"] for message in request["messages"][:2])
    if "rewrite them" not in system:
        return good("an answer")
    notes = user.partition("# Notes so far\n")[2].split("\n")[0]
    return good(f"<context>{1 if notes == 'none' else int(notes) + 1}</context>")


def episode_in(store, world, task, kind):
    """Return the solve or update episode of a task, as it is stored."""
    with store.read() as c:
        id = rows.known_task(c, rows.known_world(c, world), task).id
        of_task = sa.and_(transcripts.c.task_id == id, transcripts.c.kind == kind)
        return json.loads(c.execute(sa.select(transcripts.c.episode).where(of_task)).scalar_one())


def trained_life():
    """Return a pack, and the life that the bundled model lives in it in training, as the world `lake`."""
    pack = make_pack("frozen-lake-v1", "easy", "dev", 0, 4)
    folder = model_folder("base")
    profile = load_profile(folder)
    worker = Worker(Plan(folder, profile, None))
    job = Job(pack, Own(profile.strategy()), profile.episode_params(), ("agent", "lake"))
    (life,) = run_loop(rollouts([job], worker.sampler, worker.render))
    return pack, life
