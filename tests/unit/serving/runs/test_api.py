from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.browsed_runs import LIDS, Served, key_of, numbers, problem
from support.runs import ScoredImage
from support.served_runs import STARTED, THRESHOLD, run_images, write_served_run

from uniad_ray.archive.stores.location import Location
from uniad_ray.config.region import RegionMask
from uniad_ray.perception.region import Region
from uniad_ray.runs.reviews import read_marks
from uniad_ray.serving.http.problems import MEDIA_TYPE
from uniad_ray.serving.runs import browser as run_browser


def test_runs_are_listed_with_their_counts(served: Served) -> None:
    document = served.get("").json()
    assert document["may_review"] is True
    gone, night = document["runs"]
    assert gone["name"] == "gone"
    assert gone["problem"].startswith("run 'gone' is unfinished, corrupt or unreachable")
    assert served.run.uri not in gone["problem"]
    assert (night["created_at"], night["maps"], night["problem"]) == (STARTED, "all", None)
    assert (night["images"], night["errors"], night["anomalous"]) == (10, 1, 6)
    lids, trays = night["categories"]
    assert (lids["category"], lids["images"], lids["errors"], lids["anomalous"]) == ("lids", 9, 1, 6)
    assert (trays["category"], trays["images"], trays["bundle_version"]) == ("trays", 1, "v1")


def test_row_holds_all_columns_of_image(served: Served) -> None:
    (row,) = [row for row in served.rows() if row["row_key"] == key_of(3)]
    assert row == {
        "row_key": key_of(3),
        "source_uri": "/source/lids/003.png",
        "category": "lids",
        "split": "test",
        "label": "anomalous",
        "defect_kind": "spot",
        "status": "ok",
        "error": None,
        "score": 3.5,
        "threshold": THRESHOLD,
        "decision": "anomalous",
        "decision_at_threshold": "anomalous",
        "reasons": ["patch: reason 3"],
        "experts": [
            {"expert": "patch", "raw": 3.5, "calibrated": 3.5},
            {"expert": "text_memory", "raw": 1.0, "calibrated": 1.0},
        ],
        "metadata": {"serial": "S1", "camera": "top"},
        "mark": None,
    }
    (broken,) = served.rows(status="error")
    assert broken["error"] == {"kind": "truncated", "detail": "PNG: ends early"}
    assert broken["score"] is broken["decision"] is broken["decision_at_threshold"] is None


def test_part_has_one_verdict_for_its_views(served: Served) -> None:
    page = served.get("/night/parts").json()
    assert (page["run"], page["total"], page["offset"]) == ("night", 4, 0)
    assert [(part["serial"], part["decision"], part["views"]) for part in page["parts"]] == [
        ("S0", "normal", 3),
        ("S1", "anomalous", 2),
        ("S2", "anomalous", 2),
        ("S3", "anomalous", 2),
    ]
    (part,) = served.get("/night/parts", serial="S1").json()["parts"]
    assert (part["anomalous_views"], part["margin"], part["category"]) == (2, 1.5, "lids")
    assert part["row_key"] == key_of(3)
    assert [part["serial"] for part in served.get("/night/parts", decision="normal").json()["parts"]] == ["S0"]
    assert served.get("/night/parts", decision="undecided").json()["total"] == 0
    assert [part["serial"] for part in served.get("/night/parts", offset=1, limit=1).json()["parts"]] == ["S1"]


def test_parts_are_shown_only_to_keys_for_all_their_categories(guarded: Served) -> None:
    problem(guarded.get("/night/parts"), "not-authenticated")
    problem(guarded.get("/night/parts", "line-key"), "not-allowed")
    assert guarded.get("/night/parts", "looker-key").json()["total"] == 4
    assert guarded.get("/night/parts", "trays-key").json()["total"] == 0


def test_pages_hold_every_image_once(served: Served) -> None:
    seen = []
    for offset in (0, 4, 8, 12):
        page = served.get("/night/images", category="lids", limit=4, offset=offset).json()
        assert (page["total"], page["offset"], page["threshold"]) == (9, offset, THRESHOLD)
        seen += numbers(page["images"])
    assert seen == ["007", "006", "005", "004", "003", "002", "001", "000", "broken"]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"decision": "normal"}, ["001", "000"]),
        ({"decision": "normal", "threshold": 3.0}, ["002", "001", "000"]),
        ({"min_score": 2.5, "max_score": 4.5}, ["004", "003", "002"]),
        ({"order": "lowest", "status": "ok", "limit": 2}, ["000", "001"]),
        ({"order": "threshold", "threshold": 3.6, "limit": 3}, ["003", "004", "002"]),
        ({"order": "archive", "limit": 1}, ["000"]),
        ({"decision": "anomalous", "max_score": 2.0}, []),
    ],
)
def test_filters_and_orders(served: Served, query: dict[str, Any], found: list[str]) -> None:
    assert numbers(served.rows(**query)) == found


def test_rows_have_decision_at_requested_threshold(served: Served) -> None:
    (row,) = served.rows(threshold=4.0, min_score=3.5, max_score=3.5)
    assert (row["decision"], row["decision_at_threshold"], row["threshold"]) == ("anomalous", "normal", THRESHOLD)


def test_what_if_counts_changed_decisions_and_errors(served: Served) -> None:
    stored = served.get("/night/threshold", category="lids").json()
    assert (stored["threshold"], stored["stored_threshold"], stored["changed"]) == (THRESHOLD, THRESHOLD, 0)
    assert (stored["lowest_score"], stored["highest_score"], stored["images"]) == (0.5, 7.5, 8)
    assert stored["errors_before"] == stored["errors_after"] == {"false_alarms": 2, "misses": 1}
    higher = served.get("/night/threshold", category="lids", threshold=5.0).json()
    # 2.5, 3.5 and 4.5 become normal; 3.5 is labelled anomalous, 4.5 normal, and 2.5 has no label.
    assert (higher["changed"], higher["to_normal"], higher["to_anomalous"]) == (3, 3, 0)
    assert (higher["anomalous_before"], higher["anomalous_after"]) == (6, 3)
    assert (higher["labelled_normal"], higher["labelled_anomalous"]) == (3, 4)
    assert higher["errors_before"] == {"false_alarms": 2, "misses": 1}
    assert higher["errors_after"] == {"false_alarms": 1, "misses": 2}
    served.mark({"row_key": key_of(2), "mark": "false_alarm"}, {"row_key": key_of(3), "mark": "false_alarm"})
    marked = served.get("/night/threshold", category="lids", threshold=5.0).json()
    assert (marked["labelled_normal"], marked["labelled_anomalous"]) == (5, 3)
    assert marked["errors_before"] == {"false_alarms": 4, "misses": 1}
    assert marked["errors_after"] == {"false_alarms": 1, "misses": 1}
    assert served.get("/night/threshold", category="lids", threshold=-9).json()["to_anomalous"] == 2


def test_no_error_counts_without_labels(served: Served, tmp_path: Path) -> None:
    images = [ScoredImage("a.png", run_images()[0].image, 3.0, None, category="lids")]
    served = Served(write_served_run(tmp_path / "other", images), tmp_path)
    document = served.get("/night/threshold", category="lids", threshold=5).json()
    assert (document["errors_before"], document["errors_after"], document["changed"]) == (None, None, 1)


def test_pictures_are_reencoded_and_bounded(tmp_path: Path) -> None:
    sink = io.BytesIO()
    Image.fromarray(np.full((300, 900, 3), (200, 40, 40), np.uint8)).save(sink, "PNG")
    wide = ScoredImage("wide.png", sink.getvalue(), 3.0, category="lids", size=(900, 300))
    served = Served(write_served_run(tmp_path, [wide]), tmp_path)
    for what, size in (("thumbnail", (256, 85)), ("image", (900, 300))):
        response = served.get(f"/night/images/{wide.row_key}/{what}", category="lids")
        assert response.headers["content-type"] == "image/jpeg"
        assert response.headers["cache-control"] == "private, max-age=600"
        with Image.open(io.BytesIO(response.content)) as picture:
            assert (picture.format, picture.size) == ("JPEG", size)
            assert np.allclose(np.asarray(picture.convert("RGB")), (200, 40, 40), atol=6)


def test_map_is_that_of_run_or_not_found(served: Served, tmp_path: Path) -> None:
    document = served.get(f"/night/images/{key_of(7)}/map", category="lids").json()
    assert (document["form"], document["height"], document["width"]) == ("png", 16, 16)
    kept = np.asarray(LIDS["007.png"].anomaly_map, dtype=np.float32)
    assert (document["low"], document["high"]) == (pytest.approx(kept.min()), pytest.approx(kept.max()))
    with Image.open(io.BytesIO(base64.b64decode(document["data"]))) as picture:
        greys = np.asarray(picture, dtype=np.float32)
    restored = document["low"] + greys / 255 * (document["high"] - document["low"])
    assert np.allclose(restored, kept, atol=0.02)
    broken = LIDS["broken.png"].row_key
    problem(served.get(f"/night/images/{broken}/map", category="lids"), "not-found")
    none = Served(write_served_run(tmp_path / "none", run_images(), maps="none"), tmp_path)
    document = problem(none.get(f"/night/images/{key_of(7)}/map", category="lids"), "not-found")
    assert "--maps none" in document["detail"]


def test_undecodable_image_is_problem(served: Served) -> None:
    broken = LIDS["broken.png"].row_key
    for what in ("thumbnail", "image"):
        problem(served.get(f"/night/images/{broken}/{what}", category="lids"), "unusable-image")


@pytest.mark.parametrize(
    ("path", "query", "kind"),
    [
        ("/other/images", {"category": "lids"}, "not-found"),
        ("/night/images", {"category": "nuts"}, "not-found"),
        ("/night/images/none/thumbnail", {"category": "lids"}, "not-found"),
        ("/night/images/none/map", {"category": "lids"}, "not-found"),
        (f"/night/images/{key_of(1)}/image", {"category": "trays"}, "not-found"),
        ("/gone/threshold", {"category": "lids"}, "store-unavailable"),
        ("/night/images", {}, "invalid-request"),
        ("/night/images", {"category": "lids", "limit": 201}, "invalid-request"),
        ("/night/images", {"category": "lids", "offset": -1}, "invalid-request"),
        ("/night/images", {"category": "lids", "order": "random"}, "invalid-request"),
        ("/night/threshold", {"category": "lids", "threshold": "nan"}, "invalid-request"),
        ("/night/threshold", {"category": "lids", "threshold": "inf"}, "invalid-request"),
    ],
)
def test_missing_resources_and_invalid_queries(served: Served, path: str, query: dict[str, Any], kind: str) -> None:
    problem(served.get(path, **query), kind)


def test_scores_can_be_browsed_without_archive(served: Served) -> None:
    served.rows()
    Location.parse(f"{served.run.uri}/../archive").delete_tree()
    assert len(served.rows()) == 9
    document = problem(served.get(f"/night/images/{key_of(1)}/thumbnail", category="lids"), "store-unavailable")
    assert "archive" in document["detail"]
    assert str(served.run) not in document["detail"]


def test_scores_of_run_are_read_once(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[Any] = []
    real = run_browser.RunReader.scores
    monkeypatch.setattr(
        run_browser.RunReader, "scores", lambda *args, **options: (reads.append(options), real(*args, **options))[1]
    )
    for threshold in (1, 2, 3):
        served.get("/night/threshold", category="lids", threshold=threshold)
        served.rows(threshold=threshold)
    assert reads == [{"categories": ["lids"]}]


def test_rights_and_categories_apply_to_all_operations(guarded: Served) -> None:
    looks = [
        "",
        "/night/images",
        "/night/threshold",
        *(f"/night/images/{key_of(1)}/{what}" for what in ("thumbnail", "image", "map")),
    ]
    for path in looks:
        problem(guarded.get(path, category="lids"), "not-authenticated")
        for token in ("line-key", "blind-key"):
            problem(guarded.get(path, token, category="lids"), "not-allowed")
        assert guarded.get(path, "looker-key", category="lids").status_code == 200
        if path:
            # A forbidden category looks like a missing one.
            for category in ("lids", "nuts"):
                problem(guarded.get(path, "trays-key", category=category), "not-allowed")
    mark = {"row_key": key_of(3), "mark": "false_alarm"}
    problem(guarded.mark(mark), "not-authenticated")
    for token in ("looker-key", "line-key", "trays-key"):
        problem(guarded.mark(mark, by=token), "not-allowed")
    assert read_marks(guarded.run) == {}
    assert guarded.mark(mark, by="anna-key").status_code == 200


def test_key_sees_only_its_categories(guarded: Served) -> None:
    document = guarded.get("", "trays-key").json()
    # A run with unknown categories is shown only to keys that are valid for all.
    (night,) = document["runs"]
    assert [entry["category"] for entry in night["categories"]] == ["trays"]
    assert (night["images"], night["errors"]) == (1, 0)
    assert document["may_review"] is True
    assert guarded.get("", "looker-key").json()["may_review"] is False


def test_runs_on_s3_can_be_browsed_and_marked(s3_prefix: str, tmp_path: Path) -> None:
    served = Served(write_served_run(s3_prefix, run_images()), tmp_path)
    assert numbers(served.rows(limit=2)) == ["007", "006"]
    assert served.get(f"/night/images/{key_of(7)}/thumbnail", category="lids").status_code == 200
    assert served.mark({"row_key": key_of(7), "mark": "false_alarm"}).status_code == 200
    assert [row["mark"]["mark"] for row in served.rows(mark="any")] == ["false_alarm"]


def test_operations_document_their_errors(served: Served) -> None:
    document = served.client.get("/openapi.json").json()
    paths = {path: item for path, item in document["paths"].items() if path.startswith("/v1/runs")}
    assert len(paths) == 8
    for path, operations in paths.items():
        for operation in operations.values():
            documented = set(operation["responses"]) - {"200"}
            assert {"401", "403", "405", "500", "503", "504"} <= documented, path
            for status in documented:
                assert set(operation["responses"][status]["content"]) == {MEDIA_TYPE}
    pictures = paths["/v1/runs/{run}/images/{row_key}/thumbnail"]["get"]["responses"]["200"]["content"]
    assert set(pictures) == {"image/jpeg"}


def test_large_picture_shows_the_region_and_the_thumbnail_does_not(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shown(what: str) -> np.ndarray:
        data = served.get(f"/night/images/{key_of(7)}/{what}", category="lids").content
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)

    plain = {what: shown(what) for what in ("image", "thumbnail")}
    height, width = plain["image"].shape[:2]
    inside = np.zeros((height, width), dtype=bool)
    inside[:, : width // 2] = True
    region = Region(RegionMask.of(inside), (height, width))
    monkeypatch.setattr(run_browser.OpenCategory, "region", property(lambda _: region))
    changed = np.abs(shown("image") - plain["image"]).max(axis=-1) > 30
    assert changed[:, width // 2 - 1 : width // 2 + 1].any(axis=1).all()
    assert not changed[:, : width // 4].any()
    assert np.array_equal(shown("thumbnail"), plain["thumbnail"])
