"""Limits on the tokens and the money that requests to endpoints may use."""

from __future__ import annotations

from dataclasses import dataclass

CHARS_PER_TOKEN = 3
"""Assumed length of a token, in characters, if a server does not count tokens."""


class SpentError(RuntimeError):
    """A limit on tokens or money is reached."""


@dataclass
class Budget:
    """Limits, prices, and what has been used so far. None means no limit."""

    max_tokens: int | None = None
    """Maximum number of tokens, of prompts and replies together."""
    max_cost: float | None = None
    price_in: float = 0.0
    """Price of a million prompt tokens."""
    price_out: float = 0.0
    """Price of a million tokens of replies, hidden thoughts included."""
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def cost(self) -> float:
        """Money used so far."""
        return (self.prompt_tokens * self.price_in + self.completion_tokens * self.price_out) / 1e6

    def spend(self, prompt_tokens: int, completion_tokens: int) -> None:
        """Count the tokens of a request."""
        self.prompt_tokens += prompt_tokens
        self.completion_tokens += completion_tokens

    def check(self) -> None:
        """Raise SpentError if a limit is reached."""
        used = f"{self.prompt_tokens:,} prompt tokens and {self.completion_tokens:,} reply tokens"
        if self.max_tokens is not None and self.prompt_tokens + self.completion_tokens >= self.max_tokens:
            raise SpentError(f"max_tokens_total={self.max_tokens} is reached with {used}")
        if self.max_cost is not None and self.cost >= self.max_cost:
            raise SpentError(f"max_cost={self.max_cost:g} is reached with {self.cost:.4g} for {used}")
