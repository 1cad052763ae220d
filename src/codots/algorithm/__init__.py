"""The algorithm: credit and policy losses, independent of rollouts and models."""
