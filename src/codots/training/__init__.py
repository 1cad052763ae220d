"""Training: reinforcement learning over whole lives, and imitation for a first model."""
