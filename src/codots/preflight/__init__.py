"""Checks of this machine, and estimates of memory and time, before a run."""
