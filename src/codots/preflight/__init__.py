"""Checks to make before a run: whether this machine is ready, and how much memory and time the run needs."""
