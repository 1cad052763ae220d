"""A transcript records every id once, in order, and trains only what the policy sampled."""

import pytest

from codots.core.transcript import Sampled, StopReason, Transcript


def two_turns():
    transcript = Transcript()
    transcript.read([1, 2, 3])
    transcript.wrote(Sampled([4, 5], [-0.5, -0.25], StopReason.STOP, 7))
    transcript.read([6])
    transcript.wrote(Sampled([8], [-1.0], StopReason.LENGTH, 7))
    return transcript


def test_ids_are_kept_in_order_and_the_sampled_ones_marked():
    transcript = two_turns()
    assert transcript.ids == [1, 2, 3, 4, 5, 6, 8]
    assert transcript.mask == [False, False, False, True, True, False, True]
    assert transcript.logprobs == [0.0, 0.0, 0.0, -0.5, -0.25, 0.0, -1.0]
    assert transcript.version == 7
    assert transcript.tokens == 3


def test_a_sample_puts_the_advantage_on_sampled_ids_alone():
    sample = two_turns().sample(-2.5)
    assert sample.advantages == [0.0, 0.0, 0.0, -2.5, -2.5, 0.0, -2.5]
    assert len(sample.ids) == len(sample.mask) == len(sample.logprobs) == len(sample.advantages)
    assert sample.version == 7


def test_an_episode_never_spans_two_versions_of_the_weights():
    transcript = two_turns()
    with pytest.raises(ValueError, match="an episode spans weights of version 7 and 8"):
        transcript.wrote(Sampled([9], [-1.0], StopReason.STOP, 8))
    assert transcript.ids == two_turns().ids


def test_reading_and_writing_leave_the_given_lists_alone():
    prompt, sampled = [1, 2], Sampled([3], [-1.0], StopReason.STOP, 0)
    transcript = Transcript()
    transcript.read(prompt)
    transcript.wrote(sampled)
    transcript.read([4])
    assert (prompt, sampled.ids, sampled.logprobs) == ([1, 2], [3], [-1.0])


def test_transcripts_share_nothing():
    first, second = Transcript(), Transcript()
    first.read([1])
    assert second.ids == []
    assert second.tokens == 0
