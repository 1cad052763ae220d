"""Rollouts: lives of an agent, their records, and the contexts of each arm."""
