"""The Dockerfile: its files are sent, it ends without root, and its versions are those of the project."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from support.dockerfile import DOCKERFILE, ROOT, run_build_stage, sent, stages, steps

from uniad_ray.nights.config import load_nightly

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


def place_dependencies(prefix: Path) -> None:
    """Makes an environment whose dependencies are those of the tests: their records, and the path to their code.

    The build then installs only what it has built, instead of gigabytes.
    """
    packages = prefix / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    packages.mkdir(parents=True)
    own = Path(sysconfig.get_path("purelib"))
    for record in own.glob("*.dist-info"):
        if not record.name.startswith("uniad_ray-"):
            shutil.copytree(record, packages / record.name)
    (packages / "dependencies.pth").write_text(f"{own}\n", "utf-8")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_steps_of_the_build_make_an_environment_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every step of the first stage runs; only the dependencies are there before.

    With `gpu`, because torch for CPUs has an index of its own, which tests must not need.
    """
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    place_dependencies(tmp_path / "opt/uniad-ray")
    prefix = run_build_stage(tmp_path, {"DEVICE": "gpu"})
    assert prefix == tmp_path / "opt/uniad-ray"
    (installed,) = prefix.glob("lib/python*/site-packages/uniad_ray/__init__.py")
    assert (installed.parent / "_schemas/score.json").is_file()
    assert (prefix / "night.sh").is_file()
    assert (prefix / "jobs/nightly.py").is_file()
    script = "import uniad_ray.archive.schemas as s; print(s.__file__, s.dataset_schema('score').name)"
    ended = subprocess.run(
        [prefix / "bin/python", "-c", script], check=True, capture_output=True, text=True, cwd=tmp_path
    )
    assert ended.stdout.split() == [str(installed.parent / "archive/schemas.py"), "score"]
    help_text = subprocess.run(
        [prefix / "bin/uniad-ray", "nightly", "--help"], check=True, capture_output=True, text=True, cwd=tmp_path
    )
    assert "--dry-run" in help_text.stdout


NIGHT = ROOT / "deploy/night.sh"


def night(folder: Path, *arguments: str, **variables: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Runs the night with a `uniad-ray` that only writes its arguments down, and exits with `STATUS`."""
    fake = folder / "bin/uniad-ray"
    fake.parent.mkdir(parents=True, exist_ok=True)
    fake.write_text(
        f'#!/bin/sh\nline=\nfor word in "$@"; do line="$line <$word>"; done\necho ${{line# }} >> {folder}/calls\n'
        'exit "${STATUS:-0}"\n'
    )
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


@pytest.mark.parametrize(("status", "expected"), [(0, 0), (1, 1), (2, 2), (3, 0), (137, 137)])
def test_script_runs_the_night_and_takes_alarms_for_a_complete_night(
    tmp_path: Path, status: int, expected: int
) -> None:
    ended, calls = night(tmp_path, "--night", "a b", CONFIG="/c/my nights.yaml", STATUS=str(status))
    assert ended.returncode == expected
    assert calls == ["<nightly> <--config> </c/my nights.yaml> <--night> <a b>"]


def test_script_says_what_is_missing(tmp_path: Path) -> None:
    ended, calls = night(tmp_path)
    assert ended.returncode != 0
    assert "set CONFIG to the file of the nights" in ended.stderr
    assert calls == []


def test_nights_of_the_deployment_are_a_valid_configuration() -> None:
    config = load_nightly(str(ROOT / "deploy/nightly.yaml"))
    assert [source.category for source in config.sources] == ["lid"]
    (hook,) = config.notify.webhooks.values()
    assert hook.secret.env == "NIGHT_WEBHOOK_SECRET"


def test_crontab_runs_the_night_with_all_it_needs() -> None:
    lines = [line for line in (ROOT / "deploy/crontab").read_text("utf-8").splitlines() if line and line[0] != "#"]
    variables = dict(line.split("=", 1) for line in lines[:-1])
    assert {"CONFIG", "SECRETS", "PATH", "SHELL"} == set(variables)
    fields = lines[-1].split(None, 5)
    assert [bool(re.fullmatch(r"[\d*/,-]+", field)) for field in fields[:5]] == [True] * 5
    # Cron turns a percent sign into a line break.
    assert "%" not in lines[-1]
    assert "flock -n" in fields[5]
    assert "night.sh" in fields[5]
