"""Contexts: how an agent is asked to carry text from task to task, and how its reply is read."""
