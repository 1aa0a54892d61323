from __future__ import annotations

import numpy as np
import pytest
from support.image_bytes import encode

from uniad_ray.archive.image_size import reduced
from uniad_ray.scoring.fitting.synthetic.originals import Change, SyntheticOriginals


def test_the_change_is_enlarged_and_the_detail_stays() -> None:
    rng = np.random.default_rng(0)
    original = rng.integers(60, 200, (256, 256, 3), dtype=np.uint8)
    before = reduced(original, 64)
    after = before.copy()
    after[16:32, 40:48] = np.clip(after[16:32, 40:48].astype(int) - 40, 0, 255)
    changes = {"scratched": Change("image", before, after), "without file": Change("other", before, after)}
    for file in (original, encode(original, "PNG")):
        found = SyntheticOriginals(changes, {"image": file})
        assert list(found) == ["scratched"]
        difference = found["scratched"].astype(int) - original
        # Within the enlarged window, away from its soft border, every pixel is darker by as much.
        assert (difference[68:124, 164:188] == -40).all()
        outside = np.ones((256, 256), dtype=bool)
        outside[60:132, 156:196] = False
        assert (difference[outside] == 0).all()
    with pytest.raises(KeyError):
        SyntheticOriginals(changes, {"image": original})["without file"]
