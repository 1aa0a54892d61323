"""Small trees in the layouts of public data sets, and a reader for tests of the layouts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from support.trees import mask_png, png, write

from uniad_ray.archive.layouts import Rejected, SourceImage, open_source
from uniad_ray.archive.stores.location import Location

VISA_HEADER = "object,split,label,image,mask"


def draw(root: Path, *images: str, masks: tuple[str, ...] = ()) -> Path:
    """Draws images and masks at the given paths, each image with its own noise."""
    for index, path in enumerate(images):
        write(root / path, png(index))
    for path in masks:
        write(root / path, mask_png())
    return root


def visa_tree(root: Path) -> Path:
    """VisA with the objects `candle` and `pcb1`: a table of splits, and defects only of `candle`."""
    rows = [VISA_HEADER]
    for name in ("candle", "pcb1"):
        images = f"{name}/Data/Images"
        draw(root, f"{images}/Normal/0000.JPG", f"{images}/Normal/0001.JPG", f"{images}/Anomaly/000.JPG")
        # Mask values are defect numbers.
        write(root / f"{name}/Data/Masks/Anomaly/000.png", mask_png(value=3))
        rows += [
            f"{name},train,normal,{images}/Normal/0000.JPG,",
            f"{name},test,normal,{images}/Normal/0001.JPG,",
            f"{name},test,anomaly,{images}/Anomaly/000.JPG,{name}/Data/Masks/Anomaly/000.png",
        ]
    write_lines(root / "split_csv/1cls.csv", *rows)
    write_lines(
        root / "candle/image_anno.csv",
        "image,label,mask",
        "candle/Data/Images/Normal/0000.JPG,normal,",
        'candle/Data/Images/Anomaly/000.JPG,"melded,bent",candle/Data/Masks/Anomaly/000.png',
    )
    return root


def mpdd_tree(root: Path) -> Path:
    """MPDD with one category."""
    return draw(
        root,
        "bracket_brown/train/good/000.png",
        "bracket_brown/test/good/000.png",
        "bracket_brown/test/bend_and_parts_mismatch/000.png",
        masks=("bracket_brown/ground_truth/bend_and_parts_mismatch/000_mask.png",),
    )


def btad_tree(root: Path) -> Path:
    """BTAD, with masks in both formats and one image without a mask."""
    return draw(
        root,
        "01/train/ok/0000.bmp",
        "01/test/ok/0000.bmp",
        "01/test/ko/0000.bmp",
        "03/train/OK/0000.bmp",
        "03/test/KO/0001.bmp",
        "03/test/KO/0002.bmp",
        masks=("01/ground_truth/ko/0000.png", "03/ground_truth/KO/0001.bmp"),
    )


def mvtec_ad_2_tree(root: Path) -> Path:
    """MVTec AD 2 with one category."""
    return draw(
        root,
        "can/train/good/000_regular.png",
        "can/validation/good/000_regular.png",
        "can/test_public/good/000_regular.png",
        "can/test_public/bad/000_shift_1.png",
        "can/test_private/000_regular.png",
        "can/test_private_mixed/000_mixed.png",
        masks=("can/test_public/ground_truth/bad/000_shift_1_mask.png",),
    )


def mvtec_3d_ad_tree(root: Path) -> Path:
    """MVTec 3D-AD with one category, without its 3D points."""
    return draw(
        root,
        "cookie/train/good/rgb/000.png",
        "cookie/validation/good/rgb/000.png",
        "cookie/test/good/rgb/000.png",
        "cookie/test/crack/rgb/000.png",
        masks=("cookie/test/good/gt/000.png", "cookie/test/crack/gt/000.png"),
    )


def bmad_tree(root: Path) -> Path:
    """BMAD's brain MRI, RESC with its own folder names, and liver CT in the layout of some copies."""
    return draw(
        root,
        "brain/train/good/00003_60.png",
        "brain/valid/good/img/00025_99.png",
        "brain/valid/Ungood/img/00124_60.png",
        "brain/test/good/img/00000_96.png",
        "brain/test/Ungood/img/00124_60.png",
        "RESC/train/good/img/0.png",
        "RESC/val/ungood/img/1.png",
        "liver/test/img/good/2.png",
        "liver/test/img/Ungood/3.png",
        masks=(
            "brain/valid/good/label/00025_99.png",
            "brain/valid/Ungood/label/00124_60.png",
            "brain/test/Ungood/label/00124_60.png",
            "RESC/val/ungood/label/1.png",
            "liver/test/label/Ungood/3.png",
        ),
    )


def write_lines(path: Path, *lines: str) -> None:
    """Writes a table."""
    write(path, "\n".join([*lines, ""]).encode())


def read(root: Path, **options: object) -> tuple[list[SourceImage], dict[str, str]]:
    """Returns the rows of a source, without the versions of its files, and the reason for each rejected path."""
    entries = list(open_source(Location.parse(root), **options).entries())  # type: ignore[arg-type]
    rejected = [entry for entry in entries if isinstance(entry, Rejected)]
    reasons = {Path(entry.source_uri).relative_to(root).as_posix(): entry.reason for entry in rejected}
    assert len(reasons) == len(rejected)
    images = [entry for entry in entries if isinstance(entry, SourceImage)]
    return [replace(image, version="", mask_versions=()) for image in images], reasons
