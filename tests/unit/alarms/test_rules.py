from __future__ import annotations

from typing import Any

import pytest

from uniad_ray.alarms.rules import AlarmRules, raise_alarms
from uniad_ray.nights.model import NightCounts


def raised(rules: AlarmRules | None = None, **given: Any) -> list[tuple[str, str | None, float | None]]:
    found = raise_alarms(
        rules or AlarmRules(),
        **{
            "categories": {"nut": counts(40)},
            "waiting": {},
            "rejected_files": 0,
            "failed_sources": {},
            "findings": (),
            **given,
        },
    )
    return [(alarm.kind, alarm.category, alarm.value) for alarm in found]


def counts(images: int, *, errors: int = 0, anomalous: int = 0) -> NightCounts:
    return NightCounts(images=images, errors=errors, anomalous=anomalous, bundle_version="v1")


def test_quiet_night_has_no_alarm() -> None:
    assert raised(categories={"nut": counts(40, errors=2, anomalous=7)}) == []


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"failed_sources": {"/camera": "/camera: no files there"}}, [("source", None, None)]),
        ({"categories": {}}, [("no_images", None, 0)]),
        ({"categories": {}, "waiting": {"nut": 3}}, [("no_bundle", "nut", 3)]),
        ({"categories": {"nut": counts(40, errors=3)}}, [("error_share", None, 3 / 40)]),
        ({"rejected_files": 3}, [("error_share", None, 3 / 43)]),
        ({"categories": {"nut": counts(42, errors=2, anomalous=9)}}, [("reject_rate", "nut", 9 / 40)]),
        ({"categories": {"nut": counts(19, anomalous=19)}}, []),
    ],
)
def test_limits(given: dict[str, Any], expected: list[tuple[str, str | None, float]]) -> None:
    assert raised(**given) == expected


def test_rules_can_be_disabled_and_set_by_category() -> None:
    off = AlarmRules(source=False, min_images=0, error_share=None, reject_rate=None, no_bundle=False)
    bad = {
        "categories": {"nut": counts(40, errors=10, anomalous=30)},
        "waiting": {"bolt": 1},
        "failed_sources": {"/camera": "no"},
    }
    assert raised(off, **bad) == []
    one = AlarmRules(error_share=None, no_bundle=False, reject_rates={"nut": None, "cap": 0.5})
    both = {"categories": {"nut": counts(40, anomalous=40), "cap": counts(40, anomalous=24)}}
    assert raised(one, **both) == [("reject_rate", "cap", 0.6)]
