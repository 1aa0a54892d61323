"""The Dockerfile: its files are sent, it ends without root, and its versions are those of the project."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from support.dockerfile import DOCKERFILE, ROOT, run_build_stage, sent, stages, steps

TEXT = DOCKERFILE.read_text("utf-8")


def test_lines_are_joined_and_comments_left_out() -> None:
    found = steps("# a\nFROM x AS y\nRUN one && \\\n  # why\n  two\n\nuser 1\n")
    assert [(step.line, step.word, step.rest.split()) for step in found] == [
        (2, "FROM", ["x", "AS", "y"]),
        (3, "RUN", ["one", "&&", "two"]),
        (7, "USER", ["1"]),
    ]


def test_image_ends_without_root_and_without_the_tools_of_the_build() -> None:
    build, final = stages(TEXT)
    assert build[0].rest.endswith("AS build")
    (user,) = [step for step in final if step.word == "USER"]
    assert user.rest.isdigit()
    assert int(user.rest) > 0
    (copied,) = [step for step in final if step.word == "COPY"]
    assert copied.rest == "--from=build ${PREFIX} ${PREFIX}"
    assert not [step for step in final if "pip" in step.rest]


def test_base_image_is_pinned_to_a_supported_python() -> None:
    (image,) = re.findall(r"^ARG PYTHON_IMAGE=python:(\S+)$", TEXT, re.MULTILINE)
    assert re.match(r"3\.1[12]-slim-", image)


def test_context_holds_what_is_copied_and_nothing_else() -> None:
    sources = [source for step in stages(TEXT)[0] if step.word == "COPY" for source in shlex.split(step.rest)[:-1]]
    assert all((ROOT / source).exists() for source in sources)
    assert all(map(sent, sources))
    for path in (".venv", ".git", "demo/archive", "tests", "deploy/kuberay/ray-job.yaml", "README.md.bak"):
        assert not sent(path)


def test_wheel_needs_no_file_that_is_not_copied() -> None:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    needed = re.findall(r'(?:readme|license-files|"schemas") = \[?"([^"]+)"', text)
    copied = " ".join(step.rest for step in stages(TEXT)[0] if step.word == "COPY")
    assert {"README.md", "LICENSE"} <= set(needed)
    assert all(name in copied for name in needed if name != "uniad_ray/_schemas")


def test_failing_step_ends_the_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "Dockerfile"
    lines = ["FROM x", "ARG PREFIX=/opt/x", "ARG WHO=you", "WORKDIR /src", "COPY LICENSE a/"]
    own.write_text("\n".join([*lines, 'RUN echo ${WHO} > "$PREFIX"', "RUN false", ""]))
    monkeypatch.setattr("support.dockerfile.DOCKERFILE", own)
    (tmp_path / "Dockerfile.dockerignore").write_text("*\n!LICENSE\n")
    (tmp_path / "root/opt").mkdir(parents=True)
    with pytest.raises(subprocess.CalledProcessError):
        run_build_stage(tmp_path / "root", {"WHO": "me"})
    assert (tmp_path / "root/opt/x").read_text() == "me\n"
    assert (tmp_path / "root/src/a/LICENSE").is_file()


NIGHT = ROOT / "deploy/night.sh"


def night(folder: Path, *arguments: str, **variables: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Runs the night with a `uniad-ray` that only writes its arguments down; it fails at the verb in `FAIL`."""
    fake = folder / "bin/uniad-ray"
    fake.parent.mkdir(parents=True, exist_ok=True)
    fake.write_text(f'#!/bin/sh\necho "$@" >> {folder}/calls\n[ "$1" != "${{FAIL:-}}" ]\n')
    fake.chmod(0o755)
    environment = {"PATH": f"{fake.parent}{os.pathsep}{os.environ['PATH']}", **variables}
    ended = subprocess.run(
        [shutil.which("sh") or "sh", str(NIGHT), *arguments],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
    )
    calls = folder / "calls"
    return ended, calls.read_text().splitlines() if calls.exists() else []


def test_night_ingests_scores_and_reports(tmp_path: Path) -> None:
    ended, calls = night(tmp_path, "2026-11-29", SOURCE="s3://p/raw", STORE="s3://p", CATEGORY="a lid")
    assert ended.returncode == 0, ended.stderr
    assert calls == [
        "ingest s3://p/raw/2026-11-29 s3://p/archives/2026-11-29 --category a lid",
        "score s3://p/archives/2026-11-29 --bundles s3://p/bundles --out s3://p/runs/2026-11-29 --device auto",
        "report s3://p/runs/2026-11-29",
    ]


def test_night_may_have_a_manifest_and_stops_at_the_first_failure(tmp_path: Path) -> None:
    ended, calls = night(tmp_path, "n", SOURCE="/raw", STORE="/p", MANIFEST="m.csv", FAIL="score")
    assert ended.returncode == 1
    assert calls == ["ingest /raw/n /p/archives/n --manifest /raw/n/m.csv", calls[1]]
    assert "STORE" in night(tmp_path, SOURCE="/raw")[0].stderr


def test_crontab_runs_the_night_with_all_it_needs() -> None:
    lines = [line for line in (ROOT / "deploy/crontab").read_text("utf-8").splitlines() if line and line[0] != "#"]
    variables = dict(line.split("=", 1) for line in lines[:-1])
    assert {"SOURCE", "STORE", "CATEGORY", "PATH", "SHELL"} == set(variables)
    fields = lines[-1].split(None, 5)
    assert [bool(re.fullmatch(r"[\d*/,-]+", field)) for field in fields[:5]] == [True] * 5
    # Cron turns a percent sign into a line break.
    assert "%" not in lines[-1]
    assert "flock -n" in fields[5]
    assert "night.sh" in fields[5]
