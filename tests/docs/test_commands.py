"""Runs every command of the pages, or checks it against the program's options if it cannot run in a test."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from support.doc_pages import PAGES, ROOT, SHELL, PageError, blocks, check, commands, inner_commands, script
from support.page_verbs import running_verbs
from support.verb_server import SMALL, quick

from uniad_ray.cli import cli

STARTS_RAY = ("ingest", "caption", "tune-clip", "fit", "score", "nightly", "serve", "doctor")
RAY_OF_ITS_OWN = ("docs/plugins.md", "docs/tmuad.md")
"""Pages that need their own Ray, started in their folder: its workers look there for a module or a network. The other
pages share one Ray."""


def run_commands(page: Path) -> list[tuple[str, ...]]:
    """Returns the commands of a page that are run."""
    found = blocks(page.read_text("utf-8"))
    return [command.words for block in found if block.needs is None for command in commands(block)]


def starts_ray(page: Path) -> bool:
    """Returns whether a page has commands or Python calls that need Ray."""
    code = [line for block in blocks(page.read_text("utf-8")) if block.language == "python" for line in block.lines]
    calls = any(f"ur.{verb}(" in line for verb in STARTS_RAY for line in code)
    return calls or any(words[0] == "uniad-ray" and words[1] in STARTS_RAY for words in run_commands(page))


def runnable_pages() -> list[object]:
    """Returns the pages with commands to run; those that start Ray are marked slow."""
    found = []
    for page in PAGES:
        if any(words[0] not in ("make", "pip", "source") for words in run_commands(page)):
            name = str(page.relative_to(ROOT))
            found.append(pytest.param(page, id=name, marks=[pytest.mark.slow] if starts_ray(page) else []))
    return found


def reader_environment(folder: Path) -> dict[str, str]:
    """Returns the environment of a reader: the installed programs are on the path, and no model is downloaded."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "RAY_"))}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    environment["HF_HOME"] = str(folder / "hub")
    return environment


@pytest.fixture(scope="module")
def shared_verbs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Variables of a process that runs the verbs of several pages on one Ray."""
    folder = tmp_path_factory.mktemp("verbs")
    with running_verbs(folder, reader_environment(folder)) as variables:
        yield variables


def run(text: str, name: str, folder: Path, verbs: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Runs a page from top to bottom in a folder, with a process for its verbs if given."""
    (folder / "page.sh").write_text(script(text, name), "utf-8")
    return subprocess.run(
        ["timeout", "2340", "bash", "page.sh"],  # ends the page's programs too, unlike subprocess
        cwd=folder,
        env={**reader_environment(folder), **(verbs or {})},
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.timeout(2400)
@pytest.mark.parametrize("page", runnable_pages())
def test_page_runs_from_top_to_bottom(page: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Uses fewer and smaller images and fewer training steps than the page; `make demo` is tested with all of them."""
    name, text = str(page.relative_to(ROOT)), page.read_text("utf-8")
    if not starts_ray(page):
        ended = run(text, name, tmp_path)
    elif name in RAY_OF_ITS_OWN:
        with running_verbs(tmp_path, reader_environment(tmp_path)) as verbs:
            ended = run(text, name, tmp_path, verbs)
    else:
        ended = run(text, name, tmp_path, request.getfixturevalue("shared_verbs"))
    assert ended.returncode == 0, ended.stderr[-4000:]


def test_only_images_and_steps_are_reduced() -> None:
    reduced = [word for change in SMALL for word in ("--set", change)]
    assert quick(["fit", "a", "--bundles", "b"]) == ["fit", *reduced, "a", "--bundles", "b"]
    assert quick(["precompute", "a", "--out", "b"]) == ["precompute", *reduced, "a", "--out", "b"]
    for own in (
        ["score", "a", "--bundles", "b"],
        ["fit", "a", "--profile", "mine.yaml"],
        ["precompute", "a", "--out", "b", "--bundles", "c"],
    ):
        assert quick(own) == own
    assert quick(["scenes", "a", "--train", "20", "--logical", "60"]) == [
        *("scenes", "a", "--train", "20", "--logical", "60"),
        *("--train=20", "--test-good=6", "--logical=6", "--structural=6"),
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_is_valid(page: Path) -> None:
    faults = []
    for block in blocks(page.read_text("utf-8")):
        if block.language not in SHELL:
            continue
        syntax = subprocess.run(
            ["bash", "-n"], input="\n".join(block.lines), check=False, capture_output=True, text=True
        )
        faults += [f"{page.name}:{block.line}: {syntax.stderr}"] if syntax.returncode else []
        for command in commands(block):
            try:
                check(command.words)
            except PageError as error:
                faults.append(f"{page.name}:{command.line}: {' '.join(command.words)}: {error}")
    assert faults == []


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("README.md", ["uniad-ray evaluate night/run", "make demo", "source .venv/bin/activate"]),
        (
            "docs/quickstart.md",
            ["uniad-ray score archive --bundles bundles --out run", "uniad-ray compare run run-10-percent"],
        ),
        ("docs/plugins.md", ["uniad-ray evaluate run"]),
    ],
)
def test_known_commands_are_run(page: str, expected: list[str]) -> None:
    found = [" ".join(words) for words in run_commands(ROOT / page)]
    assert set(expected) <= set(found)


def test_every_verb_runs_on_some_page() -> None:
    verbs = {words[1] for page in PAGES for words in run_commands(page) if words[0] == "uniad-ray"}
    # `caption` needs a model; test_captions_page.py runs its page with a fake server.
    assert set(inner_commands(cli)) - {"caption"} <= verbs


SAMPLE = """\
# Page

    a picture  ──►  of boxes

    uniad-ray inspect one \\
        --json

<!-- needs: cloud -->

    ray job submit -- python jobs/score.py two --bundles b --out o

<!-- file: three.yaml -->
```yaml
name: three
```

```sh
pip install -c requirements.lock .
export NAME=four; FIVE=5 uniad-ray inspect "$NAME" | sort > six  # a remark
cat > seven <<'END'
uniad-ray nothing
END
uniad-ray inspect seven
```

```python
print("eight")
```
"""


def test_blocks_commands_and_markers_are_found() -> None:
    found = blocks(SAMPLE)
    assert [(block.line, block.language, block.needs, block.file) for block in found] == [
        (5, "sh", None, None),
        (10, "sh", "cloud", None),
        (14, "yaml", None, "three.yaml"),
        (18, "sh", None, None),
        (27, "python", None, None),
    ]
    assert [(command.line, " ".join(command.words)) for block in found for command in commands(block)] == [
        (5, "uniad-ray inspect one --json"),
        (10, "ray job submit -- python jobs/score.py two --bundles b --out o"),
        (18, "pip install -c requirements.lock ."),
        (19, "export NAME=four"),
        (19, "uniad-ray inspect $NAME"),
        (19, "sort"),
        (20, "cat"),
        (23, "uniad-ray inspect seven"),
    ]


def test_script_keeps_line_numbers_and_skips_marked_blocks() -> None:
    lines = script(SAMPLE, "page.md").splitlines()
    assert len(lines) == len(SAMPLE.splitlines())
    assert lines[4:6] == ["uniad-ray inspect one \\", "    --json"]
    assert lines[12:15] == ["cat > three.yaml <<'END_OF_BLOCK'", "name: three", "END_OF_BLOCK"]
    assert lines[17] == ""
    assert lines[25:28] == ["python - <<'END_OF_BLOCK'", 'print("eight")', "END_OF_BLOCK"]
    assert "ray job submit" not in "\n".join(lines)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("uniad-ray scor archive", "No such command 'scor'"),
        ("uniad-ray fit archive", "Missing option '--bundles'"),
        ("uniad-ray inspect archive --jsn", "No such option"),
        ("uniad-ray scenes dest --seed none", "'none' is not a valid integer"),
        ("uniad-ray inspect one two", "unexpected extra argument"),
        ("ray job submt -- python x", "No such command 'submt'"),
        ("ray up --no-such cluster.yaml", "No such option"),
        ("ray job submit -- python jobs/none.py", "there is no jobs/none.py"),
        ("ray job submit --working-dir jobs -- python jobs/score.py", "there is no jobs/score.py"),
        ("ray job submit --working-dir jobs -- python evaluate.py", "Missing argument 'RUN'"),
        ("ray job submit -- python jobs/score.py archive --bundles b", "Missing option '--out'"),
        ("make nothing", "no target nothing"),
        ("pip install -c none.lock .", "there is no none.lock"),
    ],
)
def test_wrong_command_is_caught(command: str, message: str) -> None:
    with pytest.raises(PageError, match=message):
        check(command.split())


@pytest.mark.parametrize("page", ["# P\n\n<!-- needs: a friend -->\n```sh\n```\n", "# P\n\n```fish\n```\n", "```sh\n"])
def test_wrong_marker_language_or_fence_is_caught(page: str) -> None:
    with pytest.raises(PageError, match="line"):
        blocks(page)


@pytest.mark.parametrize(
    ("code", "line", "message"),
    [
        ("```sh\ntrue\nuniad-ray inspect nowhere\ntrue\n```", 5, "no manifest.json found"),
        ("```sh\ntrue | uniad-ray inspect nowhere | true\n```", 4, "no manifest.json found"),
        ("```python\n\nimport no_such_module\n```", 3, "No module named 'no_such_module'"),
    ],
)
def test_failed_command_reports_line_and_message(code: str, line: int, message: str, tmp_path: Path) -> None:
    ended = run(f"# Page\n\n{code}\n", "page.md", tmp_path)
    assert ended.returncode != 0
    assert f"page.md:{line}: " in ended.stderr
    assert message in ended.stderr
