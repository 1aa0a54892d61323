"""The exit code of `uniad-ray score`."""

from __future__ import annotations

import pytest

from uniad_ray import verbs
from uniad_ray.cli import main
from uniad_ray.pipelines.score.job import ScoreReport
from uniad_ray.runs.plan import CategoryCounts
from uniad_ray.runs.timings import StageSeconds


@pytest.mark.parametrize(
    ("failed", "limit", "code"),
    [
        (1, (), 0),
        (1, ("--max-error-share=0",), 1),
        (2, (), 1),
        (2, ("--max-error-share=0.23",), 0),
        (2, ("--max-error-share=0.22",), 1),
    ],
)
def test_run_with_too_many_errors_fails_and_prints_its_results(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], failed: int, limit: tuple[str, ...], code: int
) -> None:
    counts = CategoryCounts(images=9, errors=failed, anomalous=3)
    report = ScoreReport(
        run="r",
        run_id="0a",
        images=9,
        errors=failed,
        anomalous=3,
        categories={"lids": counts},
        skipped_chunks=0,
        seconds=StageSeconds(),
        store_retries=2,
    )
    monkeypatch.setattr(verbs, "score", lambda *_, **__: report)
    with pytest.raises(SystemExit) as ended:
        main(["score", "a", "--bundles=b", "--out=r", *limit])
    assert ended.value.code == code
    output, errors = capsys.readouterr()
    assert output.splitlines()[-2:] == [
        "2 requests to the store were repeated, because it failed",
        "r: run 0a, 9 rows",
    ]
    assert (f"{failed} of 9 images could not be scored, more than --max-error-share" in errors) == bool(code)
