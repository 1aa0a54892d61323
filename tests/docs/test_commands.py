"""Every command of the pages is run, or, where it needs what a test has not, checked against the programs' options."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from support.doc_pages import PAGES, ROOT, SHELL, PageError, blocks, check, commands, inner_commands, script
from support.ray_head import running_head

from uniad_ray.cli import cli
from uniad_ray.pipelines.ray_session import local_cpus

STARTS_RAY = ("ingest", "tune-clip", "fit", "score", "serve")
WITHOUT_A_HEAD = ("docs/experts.md", "docs/tmuad.md")
"""Pages whose commands start Ray by themselves, as they do for a reader; those of the others join one that runs. The
second names the folder of a network by a path that holds in its own folder alone, where workers of a head are not."""


def run_commands(page: Path) -> list[tuple[str, ...]]:
    """The commands of a page that are run."""
    found = blocks(page.read_text("utf-8"))
    return [command.words for block in found if block.needs is None for command in commands(block)]


def starts_ray(page: Path) -> bool:
    """Whether a page has commands, or calls from Python, that need Ray."""
    code = [line for block in blocks(page.read_text("utf-8")) if block.language == "python" for line in block.lines]
    calls = any(f"ur.{verb}(" in line for verb in STARTS_RAY for line in code)
    return calls or any(words[0] == "uniad-ray" and words[1] in STARTS_RAY for words in run_commands(page))


def runnable_pages() -> list[object]:
    """Pages that run something; those that start Ray are slow."""
    found = []
    for page in PAGES:
        if any(words[0] not in ("make", "pip", "source") for words in run_commands(page)):
            name = str(page.relative_to(ROOT))
            found.append(pytest.param(page, id=name, marks=[pytest.mark.slow] if starts_ray(page) else []))
    return found


def reader_environment(folder: Path) -> dict[str, str]:
    """The environment of a reader: the installed programs are on the path, and no model was fetched yet."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "RAY_"))}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    environment["HF_HOME"] = str(folder / "hub")
    return environment


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A running Ray with as many CPUs as one that a command starts; the variables by which commands join it."""
    with running_head(local_cpus(), reader_environment(tmp_path_factory.mktemp("head"))) as variables:
        yield variables


def run(text: str, name: str, folder: Path, head: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Runs a page from top to bottom in a folder, where one is given with a Ray to join."""
    (folder / "page.sh").write_text(script(text, name), "utf-8")
    return subprocess.run(
        ["timeout", "2340", "bash", "page.sh"],  # which ends the page's programs too, as subprocess would not
        cwd=folder,
        env={**reader_environment(folder), **(head or {})},
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.timeout(2400)
@pytest.mark.parametrize("page", runnable_pages())
def test_a_page_runs_from_top_to_bottom(page: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    name = str(page.relative_to(ROOT))
    joins = starts_ray(page) and name not in WITHOUT_A_HEAD
    ended = run(page.read_text("utf-8"), name, tmp_path, request.getfixturevalue("head") if joins else None)
    assert ended.returncode == 0, ended.stderr[-4000:]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_is_one_that_its_program_takes(page: Path) -> None:
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
        ("docs/experts.md", ["uniad-ray evaluate run"]),
    ],
)
def test_the_commands_that_pages_are_known_to_show_are_run(page: str, expected: list[str]) -> None:
    found = [" ".join(words) for words in run_commands(ROOT / page)]
    assert set(expected) <= set(found)


def test_every_verb_is_run_by_some_page() -> None:
    verbs = {words[1] for page in PAGES for words in run_commands(page) if words[0] == "uniad-ray"}
    assert set(inner_commands(cli)) <= verbs


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


def test_a_script_has_the_lines_of_its_page_and_leaves_out_what_is_not_to_run() -> None:
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
def test_a_wrong_command_is_caught(command: str, message: str) -> None:
    with pytest.raises(PageError, match=message):
        check(command.split())


@pytest.mark.parametrize("page", ["# P\n\n<!-- needs: a friend -->\n```sh\n```\n", "# P\n\n```fish\n```\n", "```sh\n"])
def test_a_wrong_marker_language_or_fence_is_caught(page: str) -> None:
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
def test_a_command_that_fails_is_named_with_its_line_and_its_message(
    code: str, line: int, message: str, tmp_path: Path
) -> None:
    ended = run(f"# Page\n\n{code}\n", "page.md", tmp_path)
    assert ended.returncode != 0
    assert f"page.md:{line}: " in ended.stderr
    assert message in ended.stderr
