"""Base classes of recipes and of their sections."""

from __future__ import annotations

import os
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from codots.core.renamed import KEYS, old_keys, with_new_engine

FilePath = Annotated[str, Field(min_length=1), AfterValidator(os.path.expanduser)]
"""A path in which `~` is the home directory; shells expand it only at the start of a word, so not in `run=~/mine`."""


class Section(BaseModel):
    """A section of a recipe: frozen, with no unknown keys and only finite numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class Config(Section):
    """A whole recipe, or the settings of a command. The error for a key of an earlier version has the present name."""

    @model_validator(mode="before")
    @classmethod
    def _present_names(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        given = with_new_engine(given)
        for key in old_keys(given):
            if key not in cls.model_fields:
                raise ValueError(f"{key} is now called {KEYS[key]}")
        return given
