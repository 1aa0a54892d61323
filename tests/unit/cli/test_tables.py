"""Tables and numbers for a terminal, by hand."""

from __future__ import annotations

from uniad_ray.cli.tables import mib, percent, table


def test_numbers_are_aligned_right_and_words_left() -> None:
    rows = [("lids", 5, "1.0"), ("bottles", 1200, "-")]
    assert table(("category", "images", "AUROC"), rows).splitlines() == [
        "category  images  AUROC",
        "--------  ------  -----",
        "lids           5  1.0",
        "bottles     1200  -",
    ]


def test_empty_table_is_its_header() -> None:
    assert table(("a", "bc"), []).splitlines() == ["a  bc", "-  --"]


def test_fractions_are_in_per_cent_with_one_decimal() -> None:
    assert [percent(value) for value in (0.98765, 0.0, 1.0, None)] == ["98.8", "0.0", "100.0", "-"]


def test_sizes_are_in_mib() -> None:
    assert mib(3 * 2**19) == "1.5 MiB"
