"""The command group: finds verbs by file name, and imports each only when it is used."""

from __future__ import annotations

import importlib
import pkgutil

import click

from uniad_ray.cli import verbs


class VerbGroup(click.Group):
    """Finds the verb `tune-clip` as the command `tune_clip` of a module `tune_clip` below `verbs/`."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Names of all verbs, sorted; imports none of them."""
        return sorted(_modules())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The verb of that name; None if there is none."""
        module = _modules().get(cmd_name)
        if module is None:
            return None
        command: click.Command = getattr(importlib.import_module(module), module.rpartition(".")[2])
        return command


def _modules() -> dict[str, str]:
    """The module of each verb by its name."""
    found = pkgutil.walk_packages(verbs.__path__, f"{verbs.__name__}.")
    return {one.name.rpartition(".")[2].replace("_", "-"): one.name for one in found if not one.ispkg}
