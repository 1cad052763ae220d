"""Contexts: how an agent is prompted to carry text from task to task, and how its reply is parsed."""
