"""Puts stored captions beside the images of a report."""

from __future__ import annotations

from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import SidecarError
from uniad_ray.reporting.model import GallerySection, Report
from uniad_ray.sidecars.captions import read_caption_sidecar, read_captions


def with_captions(content: Report, sidecar: Location) -> Report:
    """Returns a report whose galleries have the captions of a sidecar; an image without one stays without.

    Args:
        content: Content of the report.
        sidecar: Root of the sidecar.

    Raises:
        SidecarError: There are no captions, or they are unfinished, corrupt or of another archive.
    """
    keys = {image.row_key for detail in content.details for section in detail.gallery for image in section.images}
    texts = read_captions(sidecar, keys)
    # The archive may have been moved, and its images may have got no caption; both at once is a mistake.
    if keys and not texts and (other := read_caption_sidecar(sidecar).archive) != content.run.archive:
        raise SidecarError(f"{sidecar}: has captions of {other}, and none of these images; caption their archive")

    def captioned(section: GallerySection) -> GallerySection:
        images = [image.model_copy(update={"caption": texts.get(image.row_key)}) for image in section.images]
        return section.model_copy(update={"images": tuple(images)})

    details = [
        detail.model_copy(update={"gallery": tuple(captioned(section) for section in detail.gallery)})
        for detail in content.details
    ]
    return content.model_copy(update={"details": tuple(details)})
