"""Measure what a context is worth in deployment: a model folder, its server, and OpenAI's client or an MCP client.

    python benchmarks/agent_lift.py runs/demo --worlds 20 --tasks 12          # through HTTP
    python benchmarks/agent_lift.py runs/demo --worlds 20 --tasks 12 --mcp    # contexts through MCP

Each world is played twice with the same tasks: with the context that is rewritten after each, and with an empty one.
The lift is the difference in the last half of the tasks, with a bootstrap interval over worlds: of the share of tasks
that succeed, as the domain defines it, and of the mean reward. With `--mcp`, the client samples with a copy of the
model, and the tools of `codots mcp` keep the contexts: rewards and versions must be those through HTTP; their digests
are printed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from contextlib import AsyncExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import openai
from agent_kills import free_port
from mcp import Client

from codots.agent.model import ServedModel
from codots.agent.store import Store
from codots.core.rng import digest, stream
from codots.domains.base import Task
from codots.domains.registry import get_domain, make_pack
from codots.model.adapter import holder
from codots.model.load import model_folder
from codots.rollout.life import reply
from codots.rollout.profile import PROFILE, load_profile
from codots.rollout.steps import SolveSteps

DOMAIN, PRESET, SPLIT = "frozen-lake-v1", "easy", "dev"


class Http:
    """Plays tasks through the chats of `codots serve`."""

    command = ("serve",)

    def __init__(self, model: str, port: int, style: str) -> None:
        self.model, self.style = model, style
        self.client = openai.AsyncOpenAI(api_key="none", base_url=f"http://127.0.0.1:{port}/v1", timeout=3600)

    async def open(self, exits: AsyncExitStack) -> None:
        """Open the client."""
        await exits.enter_async_context(self.client)

    async def play(self, task: Task, memory: object, world: str, learns: bool) -> float:
        """Play a task, and return its reward."""
        env, name = task.env(style=self.style, memory=memory), f"own-{task.position}"
        rules = {"role": "system", "content": task.domain.rules_text(task, self.style)}
        messages: list[Any] = [rules, {"role": "user", "content": env.observe()}]
        while True:
            named = {"world": world, "task": name}
            answer = await self.client.chat.completions.create(model=self.model, messages=messages, metadata=named)
            text = answer.choices[0].message.content or ""
            step = env.step(text)
            if step.done:
                break
            messages += [{"role": "assistant", "content": text}, {"role": "user", "content": step.observation}]
        if learns:
            told = {"reward": step.reward, "feedback": step.feedback, "outcome": step.observation}
            path = f"/worlds/{world}/tasks/{name}/finish?wait=600"
            done: Any = await self.client.post(path, body=told, cast_to=object)
            assert done["version"], done
        return step.reward


class Mcp:
    """Plays tasks with a model of its own and the tools of `codots mcp`."""

    command = ("mcp", "--http")

    def __init__(self, model: str, port: int, style: str) -> None:
        self.url, self.style, self.own = f"http://127.0.0.1:{port}/mcp", style, ServedModel(model)

    async def open(self, exits: AsyncExitStack) -> None:
        """Open the client."""
        exits.callback(self.own.close)
        self.client = await exits.enter_async_context(Client(self.url))

    async def call(self, name: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool."""
        result = await self.client.call_tool(name, arguments)
        assert not result.is_error, result.content
        return result.structured_content

    async def play(self, task: Task, memory: object, world: str, learns: bool) -> float:
        """Play a task, and return its reward."""
        env, rules = task.env(style=self.style, memory=memory), task.domain.rules_text(task, self.style)
        observation, profile = env.observe(), self.own.profile
        given = await self.call("start_task", world=world, description=observation, rules=rules)
        params, strategy = profile.episode_params(), profile.strategy()
        steps = SolveSteps(task.position, rules, observation, given["context"], strategy, params)

        async def solve() -> Any:
            names = ("agent", world, task.position, "solve")
            async with self.own.sampler.session(names) as session:
                while not steps.done:
                    step = env.step(await reply(steps, session, self.own.render))
                    steps.observe(step)
            return step

        step = await asyncio.wrap_future(self.own.submit(solve()))
        if learns:
            said = steps.trajectory(task.domain.reveals_reward)
            told = {"reward": step.reward, "feedback": said.feedback, "outcome": said.outcome}
            turns = [asdict(turn) for turn in said.turns]
            done = await self.call("finish_task", world=world, task=given["task"], turns=turns, wait=600, **told)
            assert done["version"], done
        return step.reward


def world_name(index: int, learns: bool) -> str:
    """Return the name of a world."""
    return f"lake-{index}" + ("" if learns else "-null")


async def life(player: Http | Mcp, index: int, size: int, learns: bool) -> list[float]:
    """Return the rewards of the tasks of a world."""
    pack = make_pack(DOMAIN, PRESET, SPLIT, index, size)
    memory, world = pack.domain.make_memory(pack.world), world_name(index, learns)
    return [await player.play(task, memory, world, learns) for task in pack.tasks]


async def lives(player: Http | Mcp, worlds: int, size: int) -> np.ndarray:
    """Return rewards with axes own or null, worlds, tasks."""
    async with AsyncExitStack() as exits:
        await player.open(exits)
        own = await asyncio.gather(*(life(player, i, size, True) for i in range(worlds)))
        null = await asyncio.gather(*(life(player, i, size, False) for i in range(worlds)))
    return np.array([own, null])


def summary(values: np.ndarray) -> dict:
    """Return the means by position, and the lift of the last half with its 95% interval."""
    own, null = values
    last = values[..., values.shape[-1] // 2 :].mean(-1)
    gains, rng = last[0] - last[1], stream("lift", "bootstrap")
    low, high = np.quantile(rng.choice(gains, (10_000, len(gains))).mean(-1), [0.025, 0.975])
    rows = {"own": own.mean(0).round(3).tolist(), "null": null.mean(0).round(3).tolist()}
    return rows | {"lift": round(gains.mean(), 3), "interval": [round(low, 3), round(high, 3)]}


def main() -> None:
    """Print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("model")
    parser.add_argument("--worlds", type=int, default=20)
    parser.add_argument("--tasks", type=int, default=12)
    parser.add_argument("--mcp", action="store_true")
    options = parser.parse_args()
    profile = load_profile(holder(model_folder(options.model), PROFILE))
    kind, port = (Mcp if options.mcp else Http), free_port()
    names = [(i, learns) for i in range(options.worlds) for learns in (True, False)]
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "agent.db")
        with Store(path) as store:
            for name in names:
                store.create(world_name(*name), profile.strategy().settings())
        arguments = [*kind.command, options.model, "--store", path, "--port", str(port)]
        command = [sys.executable, "-m", "codots", *arguments]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                server.stdout.readline()
                rewards = asyncio.run(lives(kind(options.model, port, profile.style), options.worlds, options.tasks))
            finally:
                server.terminate()
        with Store(path) as store:
            versions = [v.context for name in names if name[1] for v in store.history(world_name(*name))]
    solved = rewards > get_domain(DOMAIN).solved_above
    found = {"success": summary(solved), "reward": summary(rewards), "versions": len(versions)}
    print(json.dumps(found | {"rewards": short(map(str, rewards[0].ravel())), "contexts": short(versions)}))


def short(texts: Iterable[str]) -> str:
    """Return a short digest of texts."""
    return f"{digest(*texts):x}"[:12]


if __name__ == "__main__":
    main()
