"""Prompt templates of this family."""

from codots.core.templates import Prompts

render = Prompts(__package__)
