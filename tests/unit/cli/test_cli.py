from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from support.trees import png, write

from uniad_ray.cli import main
from uniad_ray.serving.auth.keys import hash_key, read_keys


def run(*arguments: str) -> int:
    """Runs a verb and returns its exit code."""
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    return int(caught.value.code or 0)


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Runs a verb that must fail without a traceback or output on stdout; returns its message."""
    assert run(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    return captured.err


def test_help_needs_nothing_heavy() -> None:
    code = (
        "import sys, uniad_ray.cli as c\n"
        "try:\n    c.main(['--help'])\n"
        "except SystemExit as end:\n    assert end.code == 0\n"
        "names = 'torch ray pyarrow timm faiss numpy boto3 sklearn pydantic'.split()\n"
        "heavy = [name for name in names if name in sys.modules]\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)


def test_user_errors_are_one_line_with_exit_code_two(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    empty = str(tmp_path / "empty")
    assert "no files found; name a folder" in fails(capsys, "ingest", empty, str(tmp_path / "a"))
    assert "no manifest.json found; complete `uniad-ray ingest" in fails(capsys, "inspect", empty)
    assert "no manifest.json found" in fails(capsys, "fit", empty, "--bundles", str(tmp_path / "b"))
    assert "no manifest.json found" in fails(capsys, "score", empty, "--bundles", empty, "--out", empty)
    for verb in ("evaluate", "report"):
        assert "no run there; make one with" in fails(capsys, verb, empty)
    assert "no run there; make one with" in fails(capsys, "compare", empty, empty)
    assert "Missing argument 'RUN RUN...'" in fails(capsys, "compare")
    assert "no bundles there; make one with" in fails(capsys, "bundles", empty)
    assert "no version '1' of category 'c'; there are: none" in fails(capsys, "bundles", empty, "--publish", "c", "1")
    assert "the scheme `ftp` is not supported" in fails(capsys, "inspect", "ftp://host/archive")


def test_wrong_options_name_allowed_values(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    place = str(tmp_path)
    message = fails(capsys, "fit", place, "--bundles", place, "--set", "calibration.holdot=1")
    assert message.strip() == (
        "error: profile embedded with --set: calibration.holdot: unknown key; allowed: false_positive_rate, folds, "
        "holdout, holdout_from, min_validation, review_rate, use_validation_split"
    )
    assert "no profile 'none': use one of embedded, paper" in fails(
        capsys, "fit", place, "--bundles", place, "--profile", "none"
    )
    message = fails(capsys, "score", place, "--bundles", place, "--out", place, "--false-positive-rate", "3")
    assert "the options: false_positive_rate: input should be less than 1 (got 3.0)" in message
    assert "Missing option '--out'" in fails(capsys, "score", place, "--bundles", place)
    assert "No such command 'scor'" in fails(capsys, "scor")
    assert "the command line: image_size" in fails(capsys, "scenes", place, "--image-size", "1")


def test_wrong_stage_options_are_explained(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    def wrong(*options: str) -> str:
        return fails(capsys, "precompute", str(tmp_path / "none"), "--out", str(tmp_path / "out"), *options).strip()

    known = "there are features, segments, captions, descriptions"
    assert wrong("--stages", "features,masks") == f"error: no stage 'masks'; {known}"
    assert wrong("--workers", "0") == "error: --workers 0: write a number from 1, or STAGE=NUMBER"
    assert wrong("--threads", "segments=x") == "error: --threads segments=x: write a number from 1, or STAGE=NUMBER"
    assert known in wrong("--workers", "masks=2")
    assert "write auto, cpu or cuda" in wrong("--device", "segments=tpu")
    for option in ("--profile=paper", "--set=seed=1"):
        assert "omit --profile and --set, or omit --bundles" in wrong("--bundles", str(tmp_path), option)
    assert "no manifest.json found" in wrong("--workers", "2", "--workers", "segments=1", "--device", "cpu")


def test_endpoint_checks_options_before_starting_ray(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    bundles = str(tmp_path / "bundles")
    write(tmp_path / "bundles/lids/current.json", b'{"category": "lids", "version": "1", "digest": "0"}')

    def wrong(*options: str) -> str:
        message = fails(capsys, "serve", *options).strip()
        assert "\n" not in message
        return message

    assert "bundles: " in wrong()
    assert "no published bundles; create one with `uniad-ray fit" in wrong("--bundles", str(tmp_path / "none"))
    assert "batch.sise: unknown key; allowed: images, wait_seconds" in wrong(
        "--bundles", bundles, "--set", "batch.sise=4"
    )
    assert "batch.images" in wrong("--bundles", bundles, "--set", "batch.images=0")
    assert "create keys with `uniad-ray serve-key`" in wrong("--bundles", bundles, "--host", "0.0.0.0")  # noqa: S104
    assert "none.yaml: cannot read the keys" in wrong("--bundles", bundles, "--keys", str(tmp_path / "none.yaml"))
    assert "another run is also called 'night'" in wrong("--bundles", bundles, "--runs", "/a/night", "--runs=/b/night")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert "choose another --port" in wrong("--bundles", bundles, "--port", port)
    write(tmp_path / "bundles/lids/current.json", b"{")
    assert "current.json" in wrong("--bundles", bundles)


def test_keys_are_made_once_and_revoked(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    keys = str(tmp_path / "keys.yaml")
    options = ["--keys", keys, "--json"]
    assert run("serve-key", "line", *options, "--category", "lids", "--right", "score", "--images-a-minute", "5") == 0
    made = json.loads(capsys.readouterr().out)
    (entry,) = read_keys(Path(keys))
    assert entry.sha256 == hash_key(made["key"])
    assert (entry.categories, entry.images_a_minute) == (("lids",), 5)
    assert "already has a key 'line'" in fails(capsys, "serve-key", "line", *options)
    assert run("serve-key", "line", *options, "--revoke") == 0
    assert json.loads(capsys.readouterr().out) == {"name": "line", "keys": keys}
    assert "no key 'line'" in fails(capsys, "serve-key", "line", *options, "--revoke")
    assert "Missing option '--keys'" in fails(capsys, "serve-key", "line")


def test_scenes_needs_an_empty_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write(tmp_path / "trays/train/good/0.png", png(0))
    assert "not empty" in fails(capsys, "scenes", str(tmp_path))


def test_options_of_trays_do_not_fit_products(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    message = fails(capsys, "scenes", str(tmp_path), "--product", "3", "--seed", "64").strip()
    assert message == "error: --seed is for trays; --product draws everything from its own seed: omit --seed"
    message = fails(capsys, "scenes", str(tmp_path), "--flaw-share", "0.001", "0.01").strip()
    assert message == "error: --flaw-share is for products: add --product SEED, or omit --flaw-share"
    message = fails(capsys, "scenes", str(tmp_path), "--product", "3", "--flaw-share", "0.00001", "0.01")
    assert "a flaw needs at least 12" in message
    write(tmp_path / "product-3/train/good/0.png", png(0))
    assert "product-3: not empty" in fails(capsys, "scenes", str(tmp_path), "--product", "3")
    assert "the command line: category" in fails(capsys, "scenes", str(tmp_path), "--product", "3", "--category=a/b")


def test_json_goes_to_stdout_and_logs_to_stderr(tmp_path: Path) -> None:
    options = ["--train=1", "--test-good=1", "--logical=1", "--structural=1", "--image-size=64", "--json"]
    command = [sys.executable, "-m", "uniad_ray.cli", "scenes", str(tmp_path), *options]
    ended = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    assert json.loads(ended.stdout)["category"] == "trays"
    assert "drawing: 4 images" in ended.stderr
