from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.browsed_runs import LIDS, Served, key_of, problem
from support.served_runs import THRESHOLD, run_images, write_served_run

from uniad_ray.runs.reviews import MarkKind, read_marks


def test_mark_stores_score_and_threshold(guarded: Served) -> None:
    stored = guarded.mark(
        {"row_key": key_of(3), "mark": "false_alarm", "note": "a reflection"},
        {"row_key": key_of(4), "mark": "miss", "threshold": 6.0},
        by="anna-key",
    ).json()["marks"]
    assert [entry["row_key"] for entry in stored] == [key_of(3), key_of(4)]
    marks = read_marks(guarded.run)
    first, second = marks[key_of(3)], marks[key_of(4)]
    assert (first.mark, first.score, first.threshold, first.note) == ("false_alarm", 3.5, THRESHOLD, "a reflection")
    assert (second.mark, second.score, second.threshold, second.note) == ("miss", 4.5, 6.0, None)
    assert {first.reviewer, second.reviewer} == {"anna"}
    assert first.marked_at == stored[0]["marked_at"]
    rows = guarded.get("/night/images", "anna-key", category="lids", mark="any").json()["images"]
    assert [(row["row_key"], row["mark"]["mark"]) for row in rows] == [
        (key_of(4), "miss"),
        (key_of(3), "false_alarm"),
    ]
    guarded.mark({"row_key": key_of(3), "mark": "none"}, by="anna-key")
    assert set(read_marks(guarded.run)) == {key_of(4)}


@pytest.mark.parametrize(
    ("marks", "says"),
    [
        ([{"row_key": key_of(3), "mark": "miss"}], "is anomalous, which cannot be a miss"),
        ([{"row_key": key_of(1), "mark": "false_alarm"}], "is normal, which cannot be a false alarm"),
        ([{"row_key": key_of(3), "mark": "false_alarm", "threshold": 3.5}], "at threshold 3.5"),
        ([{"row_key": "x", "mark": "miss"}], "no image 'x' in category 'lids'"),
        ([{"row_key": LIDS["broken.png"].row_key, "mark": "confirmed"}], "no score and no decision to mark"),
        ([{"row_key": key_of(1), "mark": "miss"}, {"row_key": key_of(1), "mark": "none"}], "occurs twice"),
        ([{"row_key": key_of(1), "mark": "miss"}, {"row_key": "x", "mark": "miss"}], "marks.1.row_key"),
        ([{"row_key": key_of(1), "mark": "wrong"}], "marks.0.mark"),
        ([{"row_key": key_of(1), "mark": "miss", "reviewer": "somebody else"}], "marks.0.reviewer"),
        ([{"row_key": key_of(1), "mark": "miss", "note": "x" * 2001}], "marks.0.note"),
        ([], "marks"),
    ],
)
def test_one_invalid_mark_refuses_whole_request(served: Served, marks: list[dict[str, Any]], says: str) -> None:
    assert says in json.dumps(problem(served.mark(*marks), "invalid-request"))
    assert read_marks(served.run) == {}


@pytest.mark.parametrize(
    ("content", "kind_of_body", "kind"),
    [
        (b'{"marks": []}', "text/plain", "unsupported-media-type"),
        (b'{"marks": []}', "application/x-www-form-urlencoded", "unsupported-media-type"),
        (b"{", "application/json", "invalid-request"),
        (b"[" * 9000, "application/json", "invalid-request"),
        (b"\xff\xfe", "application/json", "invalid-request"),
        (b" " * (1 << 20) + b"{}", "application/json", "too-large"),
    ],
)
def test_body_of_marks_is_bounded_json(served: Served, content: bytes, kind_of_body: str, kind: str) -> None:
    response = served.client.post("/v1/runs/night/marks", content=content, headers={"content-type": kind_of_body})
    problem(response, kind)


def test_unknown_run_takes_no_marks(served: Served) -> None:
    body = {"marks": [{"row_key": key_of(1), "category": "lids", "mark": "miss"}]}
    problem(served.client.post("/v1/runs/other/marks", json=body), "not-found")
    body["marks"][0]["category"] = "nuts"
    problem(served.client.post("/v1/runs/night/marks", json=body), "not-found")


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Served:
    """A run shared by the examples of one test."""
    root = tmp_path_factory.mktemp("lasting")
    return Served(write_served_run(root, run_images()), root)


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 8),
            st.sampled_from(get_args(MarkKind)),
            st.none() | st.sampled_from([-1.0, 0.5, 3.5, 4.0, 9.0]) | st.floats(allow_nan=False, allow_infinity=False),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_marks_must_match_decision(lasting: Served, asked: list[tuple[int, MarkKind, float | None]]) -> None:
    def fits(number: int, kind: MarkKind, threshold: float | None) -> bool:
        # Scores are 0.5, 1.5 and so on; the last image has none.
        called = 0.5 + number > (THRESHOLD if threshold is None else threshold)
        return number < 8 and (kind in ("none", "confirmed") or called == (kind == "false_alarm"))

    rows = [key_of(number) if number < 8 else LIDS["broken.png"].row_key for number in range(9)]
    before = read_marks(lasting.run)
    response = lasting.mark(
        *({"row_key": rows[number], "mark": kind, "threshold": threshold} for number, kind, threshold in asked)
    )
    is_right = all(fits(*entry) for entry in asked) and len({number for number, _, _ in asked}) == len(asked)
    assert response.status_code == (200 if is_right else 422), response.text
    wanted = {key: mark.mark for key, mark in before.items()}
    if is_right:
        wanted |= {rows[number]: kind for number, kind, _ in asked}
    assert {key: mark.mark for key, mark in read_marks(lasting.run).items()} == {
        key: kind for key, kind in wanted.items() if kind != "none"
    }


def test_failed_write_of_marks_is_problem(served: Served) -> None:
    (served.run / "marks").write_bytes(b"a file where the folder should be")
    document = problem(served.mark({"row_key": key_of(3), "mark": "false_alarm"}), "store-unavailable")
    assert "give the endpoint write access" in document["detail"]


def test_reviewers_at_two_gateways_keep_all_marks(served: Served, tmp_path: Path) -> None:
    other = Served(served.run, tmp_path)
    assert other.rows(mark="any") == []
    with ThreadPoolExecutor(4) as pool:
        done = list(
            pool.map(
                lambda number: (served, other)[number % 2].mark({"row_key": key_of(number), "mark": "confirmed"}),
                range(8),
            )
        )
    assert {response.status_code for response in done} == {200}
    for gateway in (served, other):
        assert len(gateway.rows(mark="confirmed")) == 8
