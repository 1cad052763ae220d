"""One gradient and one step of a local learner, as an engine of one worker takes them."""

from codots.learner.batch import means, normalizer


def gradient_of(learner, batch, over=None):
    """The gradient of a batch alone, flat, and its sums."""
    sums = learner.forward_backward(batch, normalizer(batch, learner.config) if over is None else over)
    return learner.take_gradient().clone(), sums


def step_on(learner, batch):
    """Take one step over the batch; give its metrics."""
    sums = learner.forward_backward(batch, normalizer(batch, learner.config))
    return means([sums]) | learner.optim_step()
