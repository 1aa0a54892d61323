"""Tokenizer, chat template and image processor of the demonstration captioner, made here and not from a model hub."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any, Final

from uniad_ray.perception.text.descriptions import CELLS
from uniad_ray.training.captioner.trays import CLASSES, PROMPT

PATCH: Final = 14
"""Side of a patch of the vision tower, pixels; four of them make one token."""
SIDE: Final = 84
"""Side of the images that the model sees, pixels: one token for each of the 3 x 3 cells of a tray."""
END: Final = "<|im_end|>"
PADDING: Final = "<|endoftext|>"
IMAGE: Final = "<|image_pad|>"
VIDEO: Final = "<|video_pad|>"
VISION_START: Final = "<|vision_start|>"
VISION_END: Final = "<|vision_end|>"
SPECIAL: Final = (PADDING, "<|im_start|>", END, VISION_START, VISION_END, "<|vision_pad|>", IMAGE, VIDEO)
CHAT_TEMPLATE: Final = """\
{% for message in messages %}<|im_start|>{{ message['role'] }}
{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}\
{% if part['type'] == 'image' or 'image' in part or 'image_url' in part %}<|vision_start|><|image_pad|><|vision_end|>\
{% elif part['type'] == 'video' or 'video' in part %}<|vision_start|><|video_pad|><|vision_end|>\
{% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

_VOCABULARY: Final = 1024
_PIECES: Final = "|".join(
    (
        r'\{"objects": \[\{"class": "',
        r'", "count": ',
        r', "positions": \["',
        r'", "',
        r'"\]\}, \{"class": "',
        r'"\]\}\]\}',
        r"[A-Z][^\n{]*",  # a sentence of the prompt
        r"[A-Za-z]+(?: [A-Za-z]+)*",  # a class or a cell
        r"\d",
        r"\s+",
        r"[^\sA-Za-z\d]+",
    )
)
"""No token crosses the border of two pieces. Each recurring piece becomes one token, so answers have few tokens."""


def build_processor() -> Any:
    """Builds the processor: a `Qwen2VLProcessor` with a tokenizer trained on the prompt and on answers.

    Answers of vLLM's structured output differ from those of the corpus in no byte, see `Tray.answer`.
    """
    library = importlib.import_module("transformers")
    tokenizer = library.PreTrainedTokenizerFast(
        tokenizer_object=_train_tokenizer(),
        eos_token=END,
        pad_token=PADDING,
        model_max_length=1024,
        additional_special_tokens=list(SPECIAL),
        clean_up_tokenization_spaces=False,
    )
    pixels = {
        "size": {"shortest_edge": SIDE**2, "longest_edge": SIDE**2},
        "patch_size": PATCH,
        "temporal_patch_size": 2,
        "merge_size": 2,
    }
    return library.Qwen2VLProcessor(
        image_processor=library.Qwen2VLImageProcessor(**pixels),
        tokenizer=tokenizer,
        video_processor=library.Qwen2VLVideoProcessor(**pixels),
        chat_template=CHAT_TEMPLATE,
    )


def question(processor: Any) -> str:
    """The text of a request about one image, with the placeholder of the image."""
    content = [{"type": "image"}, {"type": "text", "text": PROMPT}]
    messages = [{"role": "user", "content": content}]
    return str(processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))


def _train_tokenizer() -> Any:
    library = importlib.import_module("tokenizers")
    split = library.pre_tokenizers.Split(library.Regex(_PIECES), "isolated")
    encoding = library.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer = library.Tokenizer(library.models.BPE())
    tokenizer.pre_tokenizer = library.pre_tokenizers.Sequence([split, encoding])
    tokenizer.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=_VOCABULARY - len(SPECIAL),
        show_progress=False,
        initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    tokenizer.add_special_tokens([library.AddedToken(name, special=True, normalized=False) for name in SPECIAL])
    return tokenizer


def _corpus() -> Iterator[str]:
    yield from ["system\nuser\nassistant\n", PROMPT] * 50
    for kind in CLASSES:
        for cell in CELLS:
            one = f'{{"class": "{kind}", "count": 1, "positions": ["{cell}"]}}'
            yield f'{{"objects": [{one}, {one}]}}'
    yield from ['{"objects": []}'] * 50
