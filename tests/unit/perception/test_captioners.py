from __future__ import annotations

import numpy as np
import pytest

from uniad_ray.errors import ConfigError
from uniad_ray.perception.base import Perceiver, Perception
from uniad_ray.perception.captioners import CAPTION_PROMPT, CaptionDescriber, CaptionDescriberConfig, CaptionTable

IMAGES = np.zeros((2, 8, 8, 3), dtype=np.uint8)


def test_the_prompt_is_that_of_the_paper() -> None:
    assert CaptionDescriberConfig().prompt == CAPTION_PROMPT
    assert CAPTION_PROMPT == "Describe all components and their spatial relationships in the image"


def test_without_a_captioner_the_error_names_the_ways_out() -> None:
    with pytest.raises(ConfigError, match=r"caption: no captioner is configured.*ComponentDescriber.*without text"):
        CaptionDescriber("caption", CaptionDescriberConfig(), "cpu")


def test_captions_of_a_table_go_to_their_rows() -> None:
    table = CaptionTable({"a": "one pin", "b": "two pins", "c": "none"}, "captions.json")
    describer = CaptionDescriber("caption", CaptionDescriberConfig(), "cpu", table)

    assert isinstance(describer, Perceiver)
    assert describer.provides == CaptionDescriber.fields_of("caption", describer.config) == {"caption/text"}
    assert describer.perceive(Perception(["b", "a"], IMAGES)) == {"caption/text": ["two pins", "one pin"]}
    assert describer.lineage() == {"prompt": CAPTION_PROMPT, "captioner": {"source": "captions.json"}}


def test_a_row_without_a_caption_is_named() -> None:
    describer = CaptionDescriber(
        "caption", CaptionDescriberConfig(), "cpu", CaptionTable({"a": "one"}, "captions.json")
    )

    with pytest.raises(ConfigError, match=r"captions.json has no caption for image b"):
        describer.perceive(Perception(["a", "b"], IMAGES))
