"""A transcript records every id once, in order, and trains only what the policy sampled."""

from codots.core.transcript import Sampled, StopReason, Transcript


def two_turns():
    """Two answers, the second begun by weights 7 and ended by weights 8."""
    transcript = Transcript()
    transcript.read([1, 2, 3])
    transcript.wrote(Sampled([4, 5], [-0.5, -0.25], StopReason.STOP, [7, 7]))
    transcript.read([6])
    transcript.wrote(Sampled([8, 9], [-1.0, -2.0], StopReason.LENGTH, [7, 8]))
    return transcript


def test_ids_are_kept_in_order_and_the_sampled_ones_marked():
    transcript = two_turns()
    assert transcript.ids == [1, 2, 3, 4, 5, 6, 8, 9]
    assert transcript.mask == [False, False, False, True, True, False, True, True]
    assert transcript.logprobs == [0.0, 0.0, 0.0, -0.5, -0.25, 0.0, -1.0, -2.0]
    assert transcript.versions == [0, 0, 0, 7, 7, 0, 7, 8]
    assert transcript.tokens == 4


def test_a_sample_puts_the_advantage_on_sampled_ids_alone():
    sample = two_turns().sample(-2.5)
    assert sample.advantages == [0.0, 0.0, 0.0, -2.5, -2.5, 0.0, -2.5, -2.5]
    assert len(sample.ids) == len(sample.mask) == len(sample.logprobs) == len(sample.advantages)
    assert sample.versions == two_turns().versions


def test_reading_and_writing_leave_the_given_lists_alone():
    prompt, sampled = [1, 2], Sampled([3], [-1.0], StopReason.STOP, [5])
    transcript = Transcript()
    transcript.read(prompt)
    transcript.wrote(sampled)
    transcript.read([4])
    assert (prompt, sampled.ids, sampled.logprobs, sampled.versions) == ([1, 2], [3], [-1.0], [5])


def test_transcripts_share_nothing():
    first, second = Transcript(), Transcript()
    first.read([1])
    assert second.ids == []
    assert second.tokens == 0
