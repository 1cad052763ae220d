"""A transcript records every id once, in order, and trains only the sampled ids."""

from codots.core.transcript import Sampled, StopReason, Transcript


def two_turns():
    """Return a transcript of two answers; weights 7 began the second, and weights 8 ended it."""
    transcript = Transcript()
    transcript.read([1, 2, 3])
    transcript.wrote(Sampled([4, 5], [-0.5, -0.25], StopReason.STOP, [7, 7]))
    transcript.read([6])
    transcript.wrote(Sampled([8, 9], [-1.0, -2.0], StopReason.LENGTH, [7, 8]))
    return transcript


def test_ids_are_kept_in_order_and_sampled_ones_are_masked_in():
    transcript = two_turns()
    assert transcript.ids == [1, 2, 3, 4, 5, 6, 8, 9]
    assert transcript.mask == [False, False, False, True, True, False, True, True]
    assert transcript.logprobs == [0.0, 0.0, 0.0, -0.5, -0.25, 0.0, -1.0, -2.0]
    assert transcript.versions == [0, 0, 0, 7, 7, 0, 7, 8]
    assert transcript.tokens == 4


def test_only_sampled_ids_have_the_advantage():
    sample = two_turns().sample(-2.5)
    assert sample.advantages == [0.0, 0.0, 0.0, -2.5, -2.5, 0.0, -2.5, -2.5]
    assert len(sample.ids) == len(sample.mask) == len(sample.logprobs) == len(sample.advantages)
    assert sample.versions == two_turns().versions


def test_given_lists_are_not_modified():
    prompt, sampled = [1, 2], Sampled([3], [-1.0], StopReason.STOP, [5])
    transcript = Transcript()
    transcript.read(prompt)
    transcript.wrote(sampled)
    transcript.read([4])
    assert (prompt, sampled.ids, sampled.logprobs, sampled.versions) == ([1, 2], [3], [-1.0], [5])


def test_transcripts_share_no_lists():
    first, second = Transcript(), Transcript()
    first.read([1])
    assert second.ids == []
    assert second.tokens == 0
