from __future__ import annotations

import pytest

from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import ImageError
from uniad_ray.serving.http.problems import ProblemError
from uniad_ray.serving.http.references import check_reference, read_reference

PREFIXES = ("s3://plant/line-1/", "s3://shared/")


@pytest.mark.parametrize(
    "uri", ["s3://plant/line-1/a.png", "s3://plant/line-1/x/y.png", "s3://shared/a", "S3://shared/a"]
)
def test_references_below_prefix_are_allowed(uri: str) -> None:
    assert check_reference(uri, PREFIXES).bucket in {"plant", "shared"}


@pytest.mark.parametrize(
    "uri",
    [
        "s3://plant/line-2/a.png",
        "s3://plant/line-1",
        "s3://plant/line-10/a.png",
        "s3://plant/line-1/../line-2/a.png",
        "s3://plant/line-1//a.png",
        "s3://plant/line-1/./a.png",
        "s3://shared",
        "s3://shared.evil/a",
        "s3://",
        "/etc/passwd",
        "file:///etc/passwd",
        "etc/passwd",
        "~/key",
        "http://169.254.169.254/latest/meta-data",
        "https://example.org/a.png",
        "s3:/plant/line-1/a.png",
        "s3://plant/line-1/a\0.png",
        "",
    ],
)
def test_other_references_are_refused(uri: str) -> None:
    with pytest.raises(ProblemError) as caught:
        check_reference(uri, PREFIXES)
    assert caught.value.kind == "not-allowed"
    with pytest.raises(ProblemError) as without:
        check_reference(uri, ())
    assert without.value.kind == "not-allowed"


def test_objects_are_read_up_to_size_limit(s3_prefix: str) -> None:
    place = Location.parse(s3_prefix) / "a.png"
    place.write_bytes(b"0123456789")
    assert read_reference(place, 10) == b"0123456789"
    with pytest.raises(ImageError) as caught:
        read_reference(place, 9)
    assert caught.value.kind == "too_large"
    with pytest.raises(ImageError) as caught:
        read_reference(Location.parse(s3_prefix) / "b.png", 9)
    assert caught.value.kind == "not_found"
    with pytest.raises(ProblemError) as away:
        read_reference(Location.parse("s3://no-such-bucket-at-all/a.png"), 9)
    assert away.value.kind == "store-unavailable"
