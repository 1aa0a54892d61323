"""Runs the page on captions from top to bottom; the server is a fake one, and the images are small."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from support.chat_server import Asked, chat_server
from support.doc_pages import ROOT, SHELL, blocks, commands
from support.trees import mvtec_tree

from uniad_ray.archive.stores.location import Location
from uniad_ray.cli import cli

PAGE = ROOT / "docs/captions.md"
SMALL = ["--set", "image_size=[64, 64]", "--set", "map_size=16", "--set", "calibration.folds=2"]


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_page_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mvtec_tree(tmp_path / "source/part", train=8, good=2, bad=2)
    run("ingest", "source", "night/archive")
    verbs = [
        words[1:]
        for block in blocks(PAGE.read_text("utf-8"))
        if block.language in SHELL
        for words in (command.words for command in commands(block))
        if words[0] == "uniad-ray"
    ]
    assert [verb for verb, *_ in verbs] == ["caption", "caption", "fit", "score"]

    def answer(asked: Asked) -> str:
        return f"One part, brightness {int(asked.image.mean()) // 20}."

    with chat_server(answer) as server:
        for verb, *arguments in verbs[:2]:
            run(verb, *[server.url if word == "http://gpu-1:8001/v1" else word for word in arguments])
        assert len(server.asked) == 12  # the second command finds no error
    run(*[word.replace("$PWD", str(tmp_path)) for word in verbs[2]], *SMALL)
    run(*verbs[3])
    scores = [info for info in Location.parse("night/run").list(suffix=".parquet") if "scores/" in info.relative]
    rows = [row for info in scores for row in pq.read_table(io.BytesIO(info.location.read_bytes())).to_pylist()]
    assert [[entry["expert"] for entry in row["experts"]] for row in rows] == [["patch", "text"]] * 12


def run(*arguments: str) -> None:
    found = CliRunner().invoke(cli, [*arguments, "--quiet"], catch_exceptions=False)
    assert found.exit_code == 0, found.output
