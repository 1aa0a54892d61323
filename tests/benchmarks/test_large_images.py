from __future__ import annotations

import json

import pytest
from support.scripts import load_script


def test_one_line_per_product(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    script = load_script("benchmarks/large_images.py")
    options = ["105", "--image-size=512", "--train=2", "--good=2", "--structural=1", "--experts=patch"]
    monkeypatch.setattr(script, "SHARES", ((0.001, 0.002),))
    monkeypatch.setattr("sys.argv", ["large_images.py", *options])
    script.main()
    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert found["product"] == 105
    assert max(found["image_size"]) == 512
    assert found["auroc"]["patch"]["0.001-0.002"] in (0.0, 50.0, 100.0)
    assert found["seconds"].keys() == {"decode", "extractor pyramid", "fit patch", "expert patch"}


def test_auroc_by_hand() -> None:
    script = load_script("benchmarks/large_images.py")
    assert script.percent([1.0, 2.0], [3.0, 1.5]) == 75.0
    assert script.percent([], [1.0]) is None
