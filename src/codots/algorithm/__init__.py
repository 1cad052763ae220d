"""The algorithm: credit and policy losses, without any rollout or model."""
