"""The Python verbs match the verbs of the command line."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from uniad_ray import verbs
from uniad_ray.cli import cli
from uniad_ray.errors import ConfigError
from uniad_ray.pipelines.score.job import Workers

NAMES = ["ingest", "caption", "precompute", "fit", "score", "evaluate", "report", "compare", "nightly"]
# They decide what the command prints and its exit code.
REPORTING = {"as_json", "quiet", "max_error_share"}


class CalledError(Exception):
    """Ends a call once its arguments are recorded."""


def command(name: str) -> click.Command:
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    return found


@pytest.mark.parametrize("name", NAMES)
def test_api_page_lists_the_arguments(name: str) -> None:
    page = (Path(__file__).parents[2] / "docs/api.md").read_text("utf-8")
    listed = re.search(rf"^{name}\((.*?)\)$", page, re.MULTILINE | re.DOTALL)
    assert listed is not None
    arguments = [part.split("=")[0].strip() for part in re.split(r",\s", listed[1])]
    assert [part for part in arguments if part != "*"] == list(inspect.signature(getattr(verbs, name)).parameters)


def recorded(monkeypatch: pytest.MonkeyPatch, target: str, call: Callable[[], Any]) -> tuple[tuple[Any, ...], Any]:
    """The arguments that a call passes to the function `target`."""
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def record(*arguments: Any, **options: Any) -> None:
        calls.append((arguments, options))
        raise CalledError

    monkeypatch.setattr(target, record)
    with pytest.raises(CalledError):
        call()
    (found,) = calls
    return found


def from_command_line(monkeypatch: pytest.MonkeyPatch, name: str, arguments: list[str]) -> dict[str, Any]:
    """The options that the command passes to its Python function."""
    positional, options = recorded(
        monkeypatch,
        f"uniad_ray.verbs.{name}",
        lambda: CliRunner().invoke(cli, [name, *arguments], catch_exceptions=False),
    )
    assert positional == ()
    return dict(options)


def required_arguments(name: str) -> list[str]:
    given: list[str] = []
    for parameter in command(name).params:
        if parameter.required:
            given += ["place"] if isinstance(parameter, click.Argument) else [parameter.opts[0], "place"]
    return given


def test_public_functions() -> None:
    public = {name for name, found in vars(verbs).items() if inspect.isfunction(found)}
    assert public == {*NAMES}
    assert {*verbs.__all__} == public | {"DEFAULT_PROFILE", "Device"}


@pytest.mark.parametrize("name", NAMES)
def test_parameters_match_option_names(name: str) -> None:
    parameters = inspect.signature(getattr(verbs, name)).parameters.values()
    declared = [parameter for parameter in command(name).params if parameter.name not in REPORTING]
    arguments = [parameter.name for parameter in declared if isinstance(parameter, click.Argument)]
    options = [parameter.name for parameter in declared if isinstance(parameter, click.Option)]
    assert [entry.name for entry in parameters if entry.kind is entry.POSITIONAL_OR_KEYWORD] == arguments
    assert [entry.name for entry in parameters if entry.kind is entry.KEYWORD_ONLY] == options


@pytest.mark.parametrize("name", NAMES)
def test_parameters_match_option_defaults(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = inspect.signature(getattr(verbs, name)).parameters
    given = from_command_line(monkeypatch, name, required_arguments(name))
    assert given.keys() == parameters.keys()
    required = {parameter.name for parameter in command(name).params if parameter.required}
    assert {key for key, entry in parameters.items() if entry.default is entry.empty} == required
    for key, entry in parameters.items():
        if key not in required:
            assert (type(given[key]), given[key]) == (type(entry.default), entry.default), key


@pytest.mark.parametrize("name", NAMES)
def test_parameters_and_results_are_documented(name: str) -> None:
    function = getattr(verbs, name)
    described = inspect.getdoc(function) or ""
    for section in ("Args:", "Returns:", "Raises:"):
        assert f"\n{section}\n" in described
    for parameter in inspect.signature(function).parameters:
        assert f"\n    {parameter}: " in described


def test_options_become_typed_values(monkeypatch: pytest.MonkeyPatch) -> None:
    given = from_command_line(
        monkeypatch,
        "precompute",
        ["a", "--out=s", "--stages=features, segments", "--workers=2", "--workers=segments=4", "--device=features=cpu"],
    )
    assert given["stages"] == ("features", "segments")
    assert given["workers"] == {"features": 2, "segments": 4, "captions": 2, "descriptions": 2}
    assert given["device"] == {"features": "cpu"}
    given = from_command_line(monkeypatch, "score", ["a", "--bundles=b", "--out=r", "--experts=patch, text"])
    assert given["experts"] == ("patch", "text")
    given = from_command_line(monkeypatch, "evaluate", ["r", "--without-marks"])
    assert given["with_marks"] is False


def test_workers_apply_to_all_or_single_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    places, given = recorded(
        monkeypatch,
        "uniad_ray.pipelines.precompute.job.precompute",
        lambda: verbs.precompute(
            "archive", out="sidecar", workers=2, threads={"segments": 3}, device={"features": "cpu"}
        ),
    )
    assert places[:2] == ("archive", "sidecar")
    assert given["workers"] == {
        "features": Workers(2, None, "cpu"),
        "segments": Workers(2, 3, "auto"),
        "captions": Workers(2, None, "auto"),
        "descriptions": Workers(2, None, "auto"),
    }


def test_unknown_stage_is_refused() -> None:
    with pytest.raises(ConfigError, match="no stage 'masks'; there are features, segments, captions, descriptions"):
        verbs.precompute("archive", out="sidecar", stages=["masks"])  # type: ignore[list-item]
    with pytest.raises(ConfigError, match="no stage 'masks'"):
        verbs.precompute("archive", out="sidecar", workers={"masks": 1})  # type: ignore[dict-item]


def test_bundles_exclude_a_profile() -> None:
    for options in ({"profile": "embedded"}, {"overrides": ["seed=1"]}):
        with pytest.raises(ConfigError, match="omit --profile and --set, or omit --bundles"):
            verbs.precompute("archive", out="sidecar", bundles="bundles", **options)  # type: ignore[arg-type]


def test_fit_gets_profile_overrides_and_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    names = tmp_path / "names.yaml"
    names.write_text("part-1: bolt\n", "utf-8")
    places, _ = recorded(
        monkeypatch,
        "uniad_ray.pipelines.fit.job.fit",
        lambda: verbs.fit("archive", bundles="bundles", overrides=["seed=7"], names=str(names)),
    )
    assert places[:2] == ("archive", "bundles")
    assert places[2].seed == 7
    assert places[2].extractors["objects"].config["names"] == {"part-1": "bolt"}
    assert places[2].origin == f"profile embedded with --set with {names}"


def test_score_option_out_of_range_is_named() -> None:
    with pytest.raises(ConfigError, match="the options: false_positive_rate: input should be less than 1"):
        verbs.score("archive", bundles="bundles", out="run", false_positive_rate=3)


def test_ingest_gets_shard_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    _, given = recorded(
        monkeypatch,
        "uniad_ray.pipelines.ingest.job.ingest",
        lambda: verbs.ingest("source", "archive", shard_images=5, shard_mib=2, chunk_images=3),
    )
    limits = given["limits"]
    assert (limits.rows, limits.bytes, limits.row_group_rows) == (5, 2 * 2**20, 3)


def test_import_is_light() -> None:
    code = (
        "import sys, uniad_ray.verbs\n"
        "names = 'torch ray pyarrow timm faiss numpy boto3 sklearn pydantic click'.split()\n"
        "print([name for name in names if name in sys.modules])\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert ended.stdout.strip() == "[]"
