"""Compute one gradient or take one step of a local learner, as an engine with one worker does."""

from codots.learner.batch import means, normalizer


def gradient_of(learner, batch, divisor=None):
    """Return the flat gradient of a batch and its sums."""
    sums = learner.forward_backward(batch, normalizer(batch, learner.config) if divisor is None else divisor)
    return learner.take_gradient().clone(), sums


def step_on(learner, batch):
    """Take one step on a batch and return its metrics."""
    sums = learner.forward_backward(batch, normalizer(batch, learner.config))
    return means([sums]) | learner.optim_step()
