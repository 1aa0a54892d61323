"""The command group: finds verbs by file name, and imports each only when it is used."""

from __future__ import annotations

import importlib
import pkgutil

import click

from uniad_ray.cli import verbs


class VerbGroup(click.Group):
    """Finds the verb `tune-clip` as the command `tune_clip` of the module `verbs/tune_clip.py`."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Names of all verbs, sorted; imports none of them."""
        return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(verbs.__path__))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb of that name; None if there is none."""
        if cmd_name not in self.list_commands(ctx):
            return None
        name = cmd_name.replace("-", "_")
        command: click.Command = getattr(importlib.import_module(f"{verbs.__name__}.{name}"), name)
        return command
