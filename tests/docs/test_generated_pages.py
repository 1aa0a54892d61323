"""Generated pages match the code, and links and commands of all pages are valid."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from pydantic import Field
from support.doc_pages import PAGES, ROOT, inner_commands, options, ray_cli
from support.scripts import load_script

from uniad_ray.cli import cli
from uniad_ray.config.base import StrictModel
from uniad_ray.config.loading import load_config, profile_names

DOCS = ROOT / "docs"
SCHEMAS = sorted((ROOT / "schemas").glob("*.json"))
PROFILES = sorted((ROOT / "uniad_ray/config/profiles").glob("*.yaml"))


def _generator() -> ModuleType:
    return load_script("docs/generate.py")


generate = _generator()


def prose(page: Path) -> str:
    """Returns a page without its code blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


def inline_code(page: Path) -> list[str]:
    return re.findall(r"`([^`\n]+)`", prose(page))


@pytest.mark.parametrize("name", sorted(generate.PAGES))
def test_generated_page_is_current(name: str) -> None:
    assert (DOCS / name).read_text("utf-8") == generate.PAGES[name](), "run `make docs`"


def test_check_names_stale_pages_and_writing_updates_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(generate, "DOCS", tmp_path)

    def main(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["generate.py", *arguments])
        with pytest.raises(SystemExit) as ended:
            generate.main()
        return int(ended.value.code or 0)

    assert main() == 0
    assert main("--check") == 0
    (tmp_path / "schemas.md").write_text("old", "utf-8")
    capsys.readouterr()
    assert main("--check") == 1
    assert capsys.readouterr().err == "docs/schemas.md is stale; run `make docs`\n"
    assert (tmp_path / "schemas.md").read_text("utf-8") == "old"


FREE = ("expert_sets", "fusion.groups", "fusion.weights", "fusions.<name>.groups", "fusions.<name>.weights")
"""Keys whose values are mappings with user-defined names."""


def keys_of(document: dict[str, Any], named: frozenset[str], prefix: str = "") -> Iterator[str]:
    """Yields the keys of a profile as on the page; under the keys in `named`, names are user-defined."""
    for key, value in document.items():
        inside = prefix.split(".")[-2] if prefix else ""
        path = f"{prefix}<name>" if inside in named else f"{prefix}{key}"
        if isinstance(value, dict) and key != "config" and path not in FREE:
            yield from keys_of(value, named, f"{path}.")
        else:
            yield path


@pytest.mark.parametrize("profile", PROFILES, ids=lambda path: path.stem)
def test_every_profile_key_is_documented(profile: Path) -> None:
    page = (DOCS / "configuration.md").read_text("utf-8")
    document = yaml.safe_load(profile.read_text("utf-8"))
    # A profile that comes in sizes is read as one of them.
    if (sizes := document.pop("sizes", None)) is not None:
        assert document.pop("size") in sizes
        assert "`sizes`" in page
    keys = set(keys_of(document, frozenset({"extractors", "experts", "fusions"})))
    assert {"calibration.holdout", "experts.<name>.class", "expert_sets"} <= keys
    assert [key for key in sorted(keys) if f"\n| `{key}` |" not in page] == []
    for component in (*document["extractors"].values(), *document["experts"].values()):
        section = page.partition(f"### `{component['class']}`\n")[2].partition("\n### ")[0]
        options = component.get("config", {})
        inner = [key for name in options for key in keys_of({name: options[name]}, frozenset())]
        assert [key for key in inner if f"\n| `{key}` |" not in section] == []


def test_row_has_type_default_range_and_description() -> None:
    page = (DOCS / "configuration.md").read_text("utf-8")
    for row in (
        "| `longest_side` | integer | `640` | at least 32, at most 4096 | "
        "Maximum height and width of decoded images, pixels. Larger images are reduced, smaller ones are never "
        "enlarged, and the aspect ratio is kept. |",
        "| `image_size` | 2 x integer or null | `null` | each at least 32, at most 4096 | ",
        "| `calibration.holdout` | number | `0.2` | above 0, below 0.9 | "
        "Fraction of the normal images held out of the fit, chosen by hash. |",
        "| `grid` | integer or null | `null` | at least 1, at most 512 | "
        "Side of the common patch grid; None uses the largest grid among the fields. |",
        "| `std` | 3 x number | `[0.229, 0.224, 0.225]` |  | Channel standard deviations of the network's input, RGB, "
        "for values in 0..1. |",
        "| `top_maps` | `--top-maps` | integer | `100` | at least 1 | "
        "Number of maps per category if `maps` is `top`. |",
    ):
        assert row in page, row
    assert "| `levels` | list of integer | required | 1 or more entries, entries at least 0 |" in page


def test_descriptions_come_from_fields_and_docstrings() -> None:
    class Base(StrictModel):
        """What is shared.

        Attributes:
            first: In a docstring,
                over two lines.
        """

        first: int

    class Inner(StrictModel):
        """A part."""

        deep: float | None = Field(default=None, gt=0, description="Deep down.")

    class Outer(Base):
        """The whole."""

        second: str = Field(description="At the field.")
        parts: dict[str, Inner] = Field(default_factory=dict)

    found = {row.key: row.description for row in generate.rows(Outer)}
    assert found == {
        "first": "In a docstring, over two lines.",
        "second": "At the field.",
        "parts": "A part.",
        "parts.<name>.deep": "Deep down.",
    }


def test_field_without_description_is_an_error() -> None:
    class Silent(StrictModel):
        """Says nothing of its field.

        Attributes:
            other: Another one.
        """

        mute: int

    with pytest.raises(generate.UndescribedFieldError, match=r"Silent\.mute has no description"):
        list(generate.rows(Silent))


@pytest.mark.parametrize("path", SCHEMAS, ids=lambda path: path.stem)
def test_every_schema_column_is_listed(path: Path) -> None:
    document = json.loads(path.read_text("utf-8"))
    section = (DOCS / "schemas.md").read_text("utf-8").partition(f"\n## {path.stem}\n")[2].partition("\n## ")[0]
    assert f"Version {document['version']};" in section
    for column in document.get("columns") or document["fields"]:
        (row,) = (line for line in section.splitlines() if line.startswith(f"| `{column['name']}` |"))
        assert f"| `{column['type']}` |" in row
        assert ("| yes |" if column["nullable"] else "| no |") in row
        assert (column["unit"] or "") in row


def anchors(page: Path) -> set[str]:
    """Returns the anchors of a page's headings, as on code hosts."""
    found = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_resolve(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        if not found.exists() or (anchor and anchor not in anchors(found)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_name_existing_verbs_and_options(page: Path) -> None:
    assert [code for code in inline_code(page) if speaks_of_what_is_not_there(code)] == []


def speaks_of_what_is_not_there(code: str) -> bool:
    """Returns whether inline code names an unknown verb of `uniad-ray`, or an unknown option of it or of `ray`."""
    program, *words = code.replace("=", " ").split()
    if program.startswith("--"):
        return program not in options(cli) | options(ray_cli())
    if program != "uniad-ray" or not words:
        return False
    verb = inner_commands(cli).get(words[0])
    if verb is None:
        return re.fullmatch("[a-z]+", words[0]) is not None
    return not {word for word in words if word.startswith("--")} <= options(verb)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("uniad-ray scor", True),
        ("uniad-ray score --jsn", True),
        ("uniad-ray inspect ARCHIVE --maps all", True),
        ("--no-such-option", True),
        ("uniad-ray score --maps=top", False),
        ("uniad-ray VERB --help", False),
        ("uniad-ray <verb>", False),
        ("uniad-ray --help", False),
        ("--working-dir .", False),
        ("manifest.json", False),
    ],
)
def test_unknown_verbs_and_options_are_caught(code: str, expected: bool) -> None:
    assert speaks_of_what_is_not_there(code) is expected


def test_licences_of_networks_and_packages_are_listed() -> None:
    page = (DOCS / "weights.md").read_text("utf-8").lower()
    configs = [load_config(name) for name in profile_names()]
    extractors = [extractor.config for config in configs for extractor in config.extractors.values()]
    networks = {config["architecture"] for config in extractors if "architecture" in config}
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    packages = {re.split(r"[^\w.-]", dependency)[0].lower() for dependency in dependencies}
    assert len(networks) == 7
    assert [name for name in sorted(networks | packages) if name not in page] == []


def test_generator_runs_as_a_program() -> None:
    command = [sys.executable, str(DOCS / "generate.py"), "--check"]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stderr) == (0, "")
