"""Verbs are found by their files."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from uniad_ray.cli import cli
from uniad_ray.cli.verbs import data

PROMISED = [
    "ablate",
    "archive",
    "bundles",
    "caption",
    "compare",
    "doctor",
    "evaluate",
    "fit",
    "ingest",
    "inspect",
    "nightly",
    "precompute",
    "report",
    "scenes",
    "score",
    "serve",
    "serve-key",
    "threshold",
    "tune-clip",
]
NEW_VERB = '''\
import click


@click.command()
def try_it():
    """Try something."""
    click.echo("tried")
'''


def test_all_verbs_are_listed() -> None:
    assert cli.list_commands(click.Context(cli)) == PROMISED


@pytest.mark.parametrize("verb", PROMISED)
def test_every_verb_has_help(verb: str) -> None:
    shown = CliRunner().invoke(cli, [verb, "--help"])
    assert shown.exit_code == 0
    assert "--json" in shown.output
    command = cli.get_command(click.Context(cli), verb)
    assert command is not None
    assert command.name == verb
    assert command.help


def test_new_file_is_a_new_verb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "try_it.py").write_text(NEW_VERB, "utf-8")
    monkeypatch.setattr(data, "__path__", [*data.__path__, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "uniad_ray.cli.verbs.data.try_it", raising=False)
    assert "try-it" in CliRunner().invoke(cli, ["--help"]).output
    assert CliRunner().invoke(cli, ["try-it"]).output == "tried\n"


@pytest.mark.parametrize("name", ["tune_clip", "nothing", "__init__", "data", ""])
def test_unknown_names_are_no_verbs(name: str) -> None:
    assert cli.get_command(click.Context(cli), name) is None


def test_one_verb_does_not_import_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in imported_verbs():
        monkeypatch.delitem(sys.modules, name)
    assert cli.get_command(click.Context(cli), "inspect") is not None
    assert imported_verbs() == ["uniad_ray.cli.verbs.data.inspect"]


def imported_verbs() -> list[str]:
    return [name for name in sys.modules if name.startswith("uniad_ray.cli.verbs.") and name.count(".") == 4]
