"""Learn2Ask: what to ask a patient next, and when to stop asking.

Description:
    One message to a patient who has volunteered some information: a question, or the word to stop. v1 is a clinic with
    a hidden protocol and invented patients. v0 takes dialogues from a log, and a judge scores the questions.
Hidden and shared:
    v1: the clinic's protocol: a ranking of topics and, for each channel (call, visit, chat), how many of the first
    topics must be known before stopping. It is fixed per world. Patients are public and independent of it.
    v0: nothing. A world is a shuffle of the log. Only how replies are scored carries over.
Observation:
    The dialogue so far.
Action:
    v1 reads exactly one `<action>stop</action>` or `<action>What of its onset?</action>`. A question asks about every
    topic whose name it contains. v0 reads any text: text that contains `<stop />` stops, any other text is a question.
Reward:
    Subscores for action (stop or ask), content (asks for what is wanted) and format (a single question, or only the
    stop word). Content and format are 0 if action is 0. v0: action * (1 + 2 * content) + format, from 0 to 4. v1: a
    quarter of that.
Episode end:
    After one reply: `asked`, `stopped`, `early` (stopped too early), `needless` (asked too late) or `malformed`.
Presets:
    v1: `easy`; `hard` (more topics, three channels); `scored` (easy, but the review does not name the wanted topic);
    `tiny` (tests). Dials: topics, depths, volunteered, review.
    v0: `toy` (a small invented log and a rule-based judge); `logs` (the log and the judge set by environment
    variables); `logs-sum`, `logs-ra`, `logs-rs` (the other reward modes of the paper). Dials: source, mode.
Reference policies:
    `random` chooses uniformly between stopping and the topics (v0: between stopping and a neutral question). `informed`
    follows the protocol (v0: the labels of the log). In v1 `bayes` is exact: it maximizes the expected reward of the
    current task under the posterior over protocols, given every review of the life. In v0 `bayes` is an adaptive
    scripted policy: it asks about topics not mentioned yet, and learns after how many questions dialogues stop.
Version history:
    v0: the rules of arXiv 2606.20002: real dialogues, labels from what their doctors did next, a judge; a reply that
    quotes `<stop />` stops. Differences from the paper: scores out of range are rejected, the reply is quoted for the
    judge, a life whose judge fails is missing, dialogues repeat only once the log is used up, and text without a letter
    is malformed.
    v1: a hidden protocol to learn, rules instead of the judge, a maximum reward of 1, stopping only by the exact word,
    and the mean over topics if a question names several.
"""

from __future__ import annotations

from codots.core.rng import stream
from codots.domains.base import Env, Rng, Task, World
from codots.domains.family import Family, Policies
from codots.domains.learn2ask.clinic import LONGEST, MODE, ClinicEnv, Dials, Reply, score
from codots.domains.learn2ask.dialogue import TOKEN, AdaptivePolicy, DialogueEnv, InformedPolicy, RandomPolicy, Source
from codots.domains.learn2ask.judge import DEADLINE
from codots.domains.learn2ask.log import Round
from codots.domains.learn2ask.notes import Claim, Subject, read_claims, write_channel, write_rank
from codots.domains.learn2ask.policies import Bayes, Informed, Random
from codots.domains.learn2ask.protocol import CHANNELS, TOPICS, Case, Protocol, draw_case, protocols
from codots.domains.learn2ask.score import Scores, best, fuse
from codots.domains.learn2ask.template import render
from codots.domains.registry import register


class Clinic(Family):
    """Domain family: question patients of a clinic whose protocol is hidden."""

    exact = True
    solved_above = 0.75

    def __init__(self, id: str, presets: dict[str, Dials]) -> None:
        self.id = id
        self.presets = presets

    def make_world(self, rng: Rng, dials: Dials) -> Protocol:
        """Draw the protocol."""
        every = protocols(dials.topics, dials.depths)
        return every[rng.integers(len(every))]

    def make_task(self, world: World, position: int, rng: Rng) -> Case:
        """Draw patients until one belongs to the world's split."""
        dials: Dials = world.dials
        while True:
            case = draw_case(rng, dials.topics, len(dials.depths), dials.volunteered)
            if (case.split == "train") == (world.split == "train"):
                return case

    def side(self, task: Task) -> str | None:
        """Return the side, `train` or `held-out`, that the patient belongs to."""
        case: Case = task.content
        return case.split

    def make_env(self, task: Task, *, style: str = "natural", memory: object | None = None, rng: Rng) -> Env:
        """Open the environment of a task."""
        return ClinicEnv(task.content, task.world.hidden, task.world.dials)

    def rules_text(self, task: Task, style: str) -> str:
        """Return the rules of a task as text."""
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
        """Return a factory for each scripted policy, by name."""
        return {
            "random": lambda: Random(stream(*world.names, "random"), world.dials),
            "informed": lambda: Informed(world.hidden),
            "bayes": lambda: Bayes(world.dials),
        }

    def claims(self, world: World, style: str) -> dict[str, str]:
        """Return the topic of each rank and the depth of each channel."""
        ranks = [Claim(i, (topic,)) for i, topic in enumerate(world.hidden.order, start=1)]
        depths = zip(world.dials.channels, world.hidden.depth, strict=True)
        found = {f"rank {claim.about}": write_rank(claim) for claim in ranks}
        return found | {channel: write_channel(channel, [Claim(channel, (depth,))]) for channel, depth in depths}

    def floor(self, task: Task) -> float:
        """Return the expected reward of a uniform choice between stopping and the topics."""
        topics = task.world.dials.named
        wanted = task.world.hidden.wanted(task.content)
        replies = [Reply(True), *(Reply(False, (topic,)) for topic in topics)]
        return sum(fuse(score(reply, wanted), MODE) / best(MODE) for reply in replies) / len(replies)

    def facts(self, world: World, context: str) -> tuple[int, int, int]:
        """Count the right and the wrong claims of the forms `1: onset` and `call ... 3`, and all true facts.

        Claims about ranks that are never wanted, or about channels that the world lacks, are ignored. A claim that
        leaves several options, such as `1: onset or place`, counts only if it is wrong.
        """
        protocol: Protocol = world.hidden
        truth: dict[Subject, int | str] = dict(enumerate(protocol.order, start=1))
        truth |= zip(CHANNELS, protocol.depth, strict=False)
        claims = [claim for claim in read_claims(context) if claim.about in truth]
        wrong = sum(truth[claim.about] not in claim.options for claim in claims)
        right = sum((truth[claim.about],) == claim.options for claim in claims)
        return right, wrong, len(truth)


class Dialogues(Family):
    """Domain family: continue logged dialogues as the doctor, scored by a judge."""

    bounds = (0.0, 4.0)
    solved_above = 3.0
    blocking = True
    step_timeout = DEADLINE + 30  # longer than the judge's deadline, so that the judge reports its own error

    def __init__(self, id: str, presets: dict[str, Source]) -> None:
        self.id = id
        self.presets = presets

    def lacks(self, preset: str) -> str | None:
        """Return one line on the environment variables that a preset still needs, or None if all of them are set."""
        dials: Source = self.presets[preset]
        return dials.lacks()

    def make_world(self, rng: Rng, dials: Source) -> int:
        """Draw the seed that shuffles the log. Raises ValueError if the log or the judge is invalid."""
        dials.log(), dials.judge()
        return int(rng.integers(1 << 32))

    def make_task(self, world: World, position: int, rng: Rng) -> Round:
        """Draw a round from the dialogue at this position of the shuffled log."""
        dials: Source = world.dials
        return dials.log().pick(world.split, world.hidden, position, rng)

    def side(self, task: Task) -> str | None:
        """Return the side, `train` or `held-out`, that the diagnosis belongs to."""
        dials: Source = task.world.dials
        met = any(found.diagnosis == task.content.diagnosis for session in dials.log().train for found in session)
        return "train" if met else "held-out"

    def make_env(self, task: Task, *, style: str = "natural", memory: object | None = None, rng: Rng) -> Env:
        """Open the environment of a task."""
        dials: Source = task.world.dials
        return DialogueEnv(task.content, dials.judge(), dials.mode)

    def rules_text(self, task: Task, style: str) -> str:
        """Return the rules of a task as text. Mode `Ra` scores only questions, so its rules omit how to stop."""
        return render("rules.dialogue", stop=task.world.dials.mode != "Ra", word=TOKEN)

    def policies(self, world: World) -> Policies:
        """Return a factory for each scripted policy, by name."""
        return {
            "random": lambda: RandomPolicy(stream(*world.names, "random")),
            "informed": lambda: InformedPolicy(world.dials.log().side(world.split)),
            "bayes": AdaptivePolicy,
        }

    def oracle_context(self, world: World, style: str) -> str:
        """Return a description of how replies are scored, which is the same in every world."""
        return render("oracle.dialogue", word=TOKEN)

    def floor(self, task: Task) -> float:
        """Return the expected reward of a uniform choice between stopping and a neutral question."""
        scores = Scores(1.0, 1.0, 1.0) if task.content.stop else Scores(1.0, 0.0, 1.0)
        return fuse(scores, task.world.dials.mode) / 2

    def ceiling(self, task: Task) -> float:
        """Return the reward of a perfect reply."""
        return best(task.world.dials.mode)


EASY = Dials(topics=5, depths=(1, 3), volunteered=(0, 4))
HARD = Dials(topics=7, depths=(1, 2, 4), volunteered=(1, 6))
SCORED = Dials(topics=5, depths=(1, 3), volunteered=(0, 4), review="scored")
TINY = Dials(topics=3, depths=(1, 2), volunteered=(0, 2))

TOY = Source("toy")
LOGS = {"logs": "Ra+Rs", "logs-sum": "sum", "logs-ra": "Ra", "logs-rs": "Rs"}

register(Dialogues("learn2ask-v0", {"toy": TOY} | {name: Source("environment", mode) for name, mode in LOGS.items()}))
register(Clinic("learn2ask-v1", {"easy": EASY, "hard": HARD, "scored": SCORED, "tiny": TINY}))
