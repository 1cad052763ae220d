"""Learn2Ask: what to ask a patient next, and when to stop asking.

Description:
    One message to a patient who has told some things already: a question, or the word to stop. v1 is a clinic with
    rules of its own and invented patients; v0 takes dialogues out of a log, and a judge scores the questions.
Hidden and shared:
    v1: the clinic's protocol, that is a ranking of topics, and how many of the first have to be known before one stops
    for each way in which patients come. It holds for the whole world. Patients are public and independent of it.
    v0: nothing. A world is a shuffling of the log; what carries over is how replies are scored.
Observation:
    What was said so far.
Action:
    v1 reads exactly one `<action>stop</action>` or `<action>What of its onset?</action>`; the words that name topics
    say what is asked about. v0 reads any text: one that holds `<stop />` stops, any other is a question.
Reward:
    Subscores for action (stop or ask), content (asks what was wanted) and format (a single question, or nothing but
    the word), the two last ones 0 where the first is; action * (1 + 2 * content) + format, 0 to 4. v1: a quarter of it.
Episode end:
    After one reply: `asked`, `stopped`, `early` (stopped too early), `needless` (asked too late), or malformed text.
Presets:
    v1: `easy`; `hard` (more topics, three ways to come); `scored` (easy, but the clinic's review does not name what it
    would have asked); `tiny` (tests). Dials: topics, depths, told, review.
    v0: `toy` (a small invented log and a judge by rule); `logs` (the log and the judge that the environment names),
    `logs-sum`, `logs-ra`, `logs-rs` (the paper's other ways to fuse the subscores). Dials: source, mode.
Reference policies:
    `random`, even over stopping and topics (v0: a question about nothing); `informed`, knows the protocol (v0: the
    labels of the log); `bayes`, v1: exact maximum of the current task's expected reward under the posterior over
    protocols given every review of the life; v0: a scripted learner, who asks about what was not spoken of yet, and
    stops after as many questions as the doctors of the log did.
Version history:
    v0: the rules of arXiv 2606.20002: real dialogues, labels made of what their doctors did next, a judge; quoting
    `<stop />` is stopping. Beyond it: scores out of range are refused, the reply is quoted for the judge, a failing
    judge makes the life missing, a pack never meets a dialogue twice, text without a letter is malformed.
    v1: a protocol that is hidden and has to be learned, rules in place of the judge, a reward of at most 1, exact
    stopping, and of several topics in a question the mean counts.
"""

from __future__ import annotations

import re

from codots.core.rng import stream
from codots.domains.base import Env, Rng, Task, World
from codots.domains.family import Family, Policies
from codots.domains.learn2ask.clinic import LONGEST, MODE, ClinicEnv, Dials, Reply, score
from codots.domains.learn2ask.dialogue import TOKEN, DialogueEnv, Even, Habit, Reader, Source
from codots.domains.learn2ask.judge import DEADLINE
from codots.domains.learn2ask.log import Round
from codots.domains.learn2ask.policies import Bayes, Informed, Random
from codots.domains.learn2ask.protocol import CHANNELS, TOPICS, Case, Protocol, draw_case, protocols
from codots.domains.learn2ask.score import Scores, best, fuse
from codots.domains.learn2ask.template import render
from codots.domains.registry import register

RANK = re.compile(rf"\b([1-9])\W{{1,3}}({'|'.join(TOPICS)})\b", re.I | re.A)
DEPTH = re.compile(
    rf"\b({'|'.join(CHANNELS)})\b(?:\W{{1,3}}(?!(?:{'|'.join(CHANNELS)})\b)[a-z]+){{0,4}}?\W{{1,3}}([1-9])\b"
    rf"(?!\W{{1,3}}(?:{'|'.join(TOPICS)})\b)",
    re.I | re.A,
)


class Clinic(Family):
    """Patients of one clinic with a hidden protocol."""

    exact = True

    def __init__(self, id: str, presets: dict[str, Dials]) -> None:
        self.id = id
        self.presets = presets

    def make_world(self, rng: Rng, dials: Dials) -> Protocol:
        """Draw the protocol."""
        every = protocols(dials.topics, dials.depths)
        return every[rng.integers(len(every))]

    def make_task(self, world: World, position: int, rng: Rng) -> Case:
        """Draw patients until one belongs to this split."""
        dials: Dials = world.dials
        while True:
            case = draw_case(rng, dials.topics, len(dials.depths), dials.told)
            if (case.split == "train") == (world.split == "train"):
                return case

    def side(self, task: Task) -> str | None:
        """The side of the patient."""
        case: Case = task.content
        return case.split

    def make_env(self, task: Task, *, style: str = "natural", memory: object | None = None, rng: Rng) -> Env:
        """Let the patient in."""
        return ClinicEnv(task.content, task.world.hidden, task.world.dials)

    def rules_text(self, task: Task, style: str) -> str:
        """Say the rules."""
        dials: Dials = task.world.dials
        topics = [(topic, TOPICS[topic]) for topic in dials.named]
        channels = list(CHANNELS.values())[: len(dials.depths)]
        return render(
            "rules.clinic",
            topics=topics,
            channels=channels,
            depths=dials.depths,
            longest=LONGEST,
            example=topics[-1][0],
        )

    def policies(self, world: World) -> Policies:
        """Say how each scripted player is made."""
        return {
            "random": lambda: Random(stream(*world.names, "random"), world.dials.named),
            "informed": lambda: Informed(world.hidden),
            "bayes": lambda: Bayes(world.dials),
        }

    def oracle_context(self, world: World, style: str) -> str:
        """Write the protocol down."""
        ranks = [f"- rank {i}: {topic}" for i, topic in enumerate(world.hidden.order, start=1)]
        depths = zip(CHANNELS.values(), world.hidden.depth, strict=False)
        return "\n".join(ranks + [f"- {channel}: stop once the first {depth} are known" for channel, depth in depths])

    def floor(self, task: Task) -> float:
        """The expected reward of stopping or a topic drawn evenly."""
        topics = task.world.dials.named
        wanted = task.world.hidden.wanted(task.content)
        replies = [Reply(True), *(Reply(False, (topic,)) for topic in topics)]
        return sum(fuse(score(reply, wanted), MODE) / best(MODE) for reply in replies) / len(replies)

    def facts(self, world: World, context: str) -> tuple[int, int, int]:
        """Count claims of the forms `1: onset` and `call ... 3`; a claim of a rank that is never wanted is neither."""
        protocol: Protocol = world.hidden
        ranks = [(int(rank) - 1, topic.lower()) for rank, topic in RANK.findall(context)]
        right = [protocol.order[rank] == topic for rank, topic in ranks if rank < len(protocol.order)]
        channels = dict(zip(CHANNELS, protocol.depth, strict=False))
        depths = [(channel.lower(), int(depth)) for channel, depth in DEPTH.findall(context)]
        right += [channels[channel] == depth for channel, depth in depths if channel in channels]
        return sum(right), len(right) - sum(right), len(protocol.order) + len(channels)


class Dialogues(Family):
    """Rounds of logged dialogues, scored by a judge."""

    bounds = (0.0, 4.0)
    blocking = True
    step_timeout = DEADLINE + 30  # the judge gives up first, and says why

    def __init__(self, id: str, presets: dict[str, Source]) -> None:
        self.id = id
        self.presets = presets

    def lacks(self, preset: str) -> str | None:
        """A log and a judge, where the environment is to name them."""
        dials: Source = self.presets[preset]
        return dials.lacks()

    def make_world(self, rng: Rng, dials: Source) -> int:
        """Draw a shuffling of the log, for nothing is hidden. Raises ValueError for a log or a judge that cannot be."""
        dials.log(), dials.judge()
        return int(rng.integers(1 << 32))

    def make_task(self, world: World, position: int, rng: Rng) -> Round:
        """Take a round of the next dialogue of the shuffling."""
        dials: Source = world.dials
        return dials.log().pick(world.split, world.hidden, position, rng)

    def side(self, task: Task) -> str | None:
        """The side of the diagnosis."""
        dials: Source = task.world.dials
        met = any(found.diagnosis == task.content.diagnosis for session in dials.log().train for found in session)
        return "train" if met else "held-out"

    def make_env(self, task: Task, *, style: str = "natural", memory: object | None = None, rng: Rng) -> Env:
        """Open a round."""
        dials: Source = task.world.dials
        return DialogueEnv(task.content, dials.judge(), dials.mode)

    def rules_text(self, task: Task, style: str) -> str:
        """Say what is asked for; where only questions count, not how to stop."""
        return render("rules.dialogue", stop=task.world.dials.mode != "Ra", word=TOKEN)

    def policies(self, world: World) -> Policies:
        """Say how each scripted player is made."""
        return {
            "random": lambda: Even(stream(*world.names, "random")),
            "informed": lambda: Reader(world.dials.log().side(world.split)),
            "bayes": Habit,
        }

    def oracle_context(self, world: World, style: str) -> str:
        """Write down how replies are scored, the same in every world."""
        return render("oracle.dialogue", word=TOKEN)

    def floor(self, task: Task) -> float:
        """The expected reward of stopping or a question about nothing, drawn evenly."""
        scores = Scores(1.0, 1.0, 1.0) if task.content.stop else Scores(1.0, 0.0, 1.0)
        return fuse(scores, task.world.dials.mode) / 2

    def ceiling(self, task: Task) -> float:
        """The reward of a reply that is right in all."""
        return best(task.world.dials.mode)


EASY = Dials(topics=5, depths=(1, 3), told=(0, 4))
HARD = Dials(topics=7, depths=(1, 2, 4), told=(1, 6))
SCORED = Dials(topics=5, depths=(1, 3), told=(0, 4), review="scored")
TINY = Dials(topics=3, depths=(1, 2), told=(0, 2))

TOY = Source("toy")
LOGS = {"logs": "Ra+Rs", "logs-sum": "sum", "logs-ra": "Ra", "logs-rs": "Rs"}

register(Dialogues("learn2ask-v0", {"toy": TOY} | {name: Source("environment", mode) for name, mode in LOGS.items()}))
register(Clinic("learn2ask-v1", {"easy": EASY, "hard": HARD, "scored": SCORED, "tiny": TINY}))
