"""The strict base class of every configuration model."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class StrictModel(BaseModel):
    """A frozen pydantic model that rejects unknown keys: a misspelt option is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)
