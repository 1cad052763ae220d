"""Training: reinforcement learning on lives, and imitation learning of a first model."""
