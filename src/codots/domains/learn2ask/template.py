"""The prompts of this family."""

from codots.template import Prompts

render = Prompts(__package__)
