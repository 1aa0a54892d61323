"""Secrets come from environment variables or files, never from the configuration itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

from pydantic import model_validator

from uniad_ray.config.base import StrictModel
from uniad_ray.errors import ConfigError


class Secret(StrictModel):
    """Place of a secret: exactly one of both keys.

    Attributes:
        env: Name of an environment variable.
        file: Path of a file, such as a mounted Kubernetes secret; white space around its text is removed.
    """

    env: str | None = None
    file: str | None = None

    @model_validator(mode="after")
    def _is_one_place(self) -> Self:
        if (self.env is None) == (self.file is None):
            raise ValueError("give either env, the name of an environment variable, or file, a path")
        return self

    def read(self, purpose: str) -> str:
        """The secret.

        Args:
            purpose: Key of the configuration, for the message.

        Raises:
            ConfigError: The variable is not set, or the file cannot be read; or the secret is empty.
        """
        if self.env is not None:
            text = os.environ.get(self.env, "").strip()
            if not text:
                raise ConfigError(f"{purpose}: environment variable {self.env} is not set; export it")
            return text
        path = Path(self.file or "").expanduser()
        try:
            text = path.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{purpose}: {path} cannot be read ({error.__class__.__name__}); create it") from error
        if not text:
            raise ConfigError(f"{purpose}: {path} is empty; write the secret into it")
        return text
