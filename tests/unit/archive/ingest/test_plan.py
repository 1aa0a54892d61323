from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uniad_ray.archive.ingest import plan_ingest, read_planned_shard
from uniad_ray.archive.layouts import Attachment, Rejected, SourceImage, row_key
from uniad_ray.archive.naming import dataset_segment
from uniad_ray.archive.shards import ShardLimits
from uniad_ray.archive.stores.location import Location


def source_image(index: int, *, category: str = "c", size: int = 10, split: str = "train") -> SourceImage:
    return SourceImage(
        row_key(category, f"{split}{index}"), f"/s/{category}/{index}", size, category, split, None, None, None
    )


@given(
    files=st.lists(
        st.tuples(st.sampled_from("ab"), st.integers(1, 50), st.sampled_from(["test", "train"])), max_size=50
    ),
    rows=st.integers(1, 7),
    most_bytes=st.integers(1, 120),
)
def test_shards_hold_each_file_once_within_limits(
    files: list[tuple[str, int, str]], rows: int, most_bytes: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    images = [
        source_image(index, category=category, size=size, split=split)
        for index, (category, size, split) in enumerate(files)
    ]
    plan = plan_ingest(images, limits=ShardLimits(rows=rows, bytes=most_bytes))
    path = tmp_path_factory.mktemp("plan") / "plan.parquet"
    path.write_bytes(plan.data)
    shards = [read_planned_shard(Location.parse(path), index) for index in range(len(plan.shards))]
    assert sorted(entry["row_key"] for shard in shards for entry in shard) == sorted(image.row_key for image in images)
    assert len(set(plan.shards)) == len(plan.shards)
    for name, shard in zip(plan.shards, shards, strict=True):
        assert len({entry["category"] for entry in shard}) == 1
        assert {entry["shard"] for entry in shard} == {name}
        assert len(shard) <= rows
        assert len(shard) == 1 or sum(entry["source_bytes"] for entry in shard) <= most_bytes


def test_plan_depends_only_on_the_listing() -> None:
    images = [source_image(index) for index in range(5)]
    limits = ShardLimits()
    assert plan_ingest(images, limits=limits) == plan_ingest(images, limits=limits)
    assert plan_ingest(images, limits=limits).ingest_id != plan_ingest(images[:4], limits=limits).ingest_id
    grown = [*images[:4], source_image(4, size=11)]
    assert plan_ingest(images, limits=limits).ingest_id != plan_ingest(grown, limits=limits).ingest_id


def test_plan_name_does_not_depend_on_versions_and_rejected_files() -> None:
    images = [source_image(index) for index in range(5)]
    plan = plan_ingest(images, limits=ShardLimits())
    copied = [replace(image, version="copied") for image in images]
    other = plan_ingest([*copied, Rejected("/s/a.txt", "no image")], limits=ShardLimits())
    assert (other.ingest_id, other.shards) == (plan.ingest_id, plan.shards)
    assert other.data != plan.data


def test_second_file_of_a_name_is_rejected() -> None:
    first, second = source_image(1), replace(source_image(1), uri="/s/c/other")
    plan = plan_ingest([first, second], limits=ShardLimits())
    assert plan.images == 1
    (rejected,) = plan.rejected
    assert rejected.source_uri == "/s/c/other"
    assert rejected.reason.startswith("another file has the same category and path")


def test_shards_of_a_hidden_category_are_visible() -> None:
    plan = plan_ingest([source_image(1, category="_lid"), source_image(2, category=".x")], limits=ShardLimits())
    folders = [path.split("/")[1] for path in plan.shards]
    assert folders == [dataset_segment(".x"), dataset_segment("_lid")]
    assert not any(folder.startswith(("_", ".")) for folder in folders)


def test_rejected_names_are_kept() -> None:
    plan = plan_ingest([Rejected("/s/a.txt", "no image"), Attachment("/s/b.csv")], limits=ShardLimits())
    assert plan.shards == ()
    assert plan.attached == 1
    assert plan.rejected == (Rejected("/s/a.txt", "no image"),)
