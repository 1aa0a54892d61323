"""Tiny networks of the published architectures with random parameters, saved in the format of transformers."""

from __future__ import annotations

import json
from pathlib import Path

import torch

LETTERS = "abcdefghijklmnopqrstuvwxyz"
CLIP_POSITIONS = 20
CLIP_WIDTH = 6
SAM_SIDE = 32
GROUNDING_WORDS = ("bolt", "nut", "red", "pin")


def save_clip(folder: Path) -> None:
    """A tiny CLIP; its configuration does not state the number of positions, as in Long-CLIP."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    vocabulary = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    width = {"hidden_size": 8, "intermediate_size": 16, "num_attention_heads": 2, "projection_dim": CLIP_WIDTH}
    text = {
        **width,
        "vocab_size": len(vocabulary),
        "num_hidden_layers": 2,
        "max_position_embeddings": CLIP_POSITIONS,
        "bos_token_id": vocabulary.index("<|startoftext|>"),
        "eos_token_id": vocabulary.index("<|endoftext|>"),
    }
    image = {**width, "num_hidden_layers": 1, "image_size": 8, "patch_size": 4}
    torch.manual_seed(0)
    CLIPModel(CLIPConfig(text_config=text, vision_config=image, projection_dim=CLIP_WIDTH)).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    del config["text_config"]["max_position_embeddings"]
    (folder / "config.json").write_text(json.dumps(config))
    CLIPImageProcessor(size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8}).save_pretrained(folder)


def save_sam(folder: Path) -> None:
    """A tiny SAM with an input size of 32 pixels."""
    from transformers import SamConfig, SamImageProcessor, SamModel

    shared = {"image_size": SAM_SIDE, "patch_size": 4, "hidden_size": 16}
    config = SamConfig(
        vision_config={
            **shared,
            "output_channels": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "window_size": 2,
            "global_attn_indexes": [1],
            "num_pos_feats": 8,
            "mlp_dim": 16,
            "initializer_range": 0.2,
        },
        prompt_encoder_config=shared,
        mask_decoder_config={
            "hidden_size": 16,
            "mlp_dim": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "iou_head_hidden_dim": 8,
        },
        initializer_range=0.5,
    )
    # With this seed, some of its masks are stable and confident.
    torch.manual_seed(6)
    SamModel(config).save_pretrained(folder)
    side, padded = {"longest_edge": SAM_SIDE}, {"height": SAM_SIDE, "width": SAM_SIDE}
    SamImageProcessor(size=side, pad_size=padded).save_pretrained(folder)


def save_sentence_t5(folder: Path) -> None:
    """A tiny Sentence-T5: the encoder of T5 with mean pooling, in the layout of sentence-transformers."""
    from sentence_transformers import SentenceTransformer
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

    vocabulary = ["<pad>", "</s>", "<unk>", *LETTERS]
    letters = Tokenizer(models.WordLevel({token: index for index, token in enumerate(vocabulary)}, unk_token="<unk>"))  # noqa: S106
    letters.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    letters.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    width = {"d_model": CLIP_WIDTH, "d_kv": 3, "d_ff": 8, "num_heads": 2, "num_layers": 1}
    torch.manual_seed(0)
    plain = folder.with_name(f"{folder.name}-plain")
    T5EncoderModel(T5Config(vocab_size=len(vocabulary), **width)).save_pretrained(plain)
    PreTrainedTokenizerFast(tokenizer_object=letters, model_max_length=64, **names).save_pretrained(plain)
    SentenceTransformer(str(plain), device="cpu").save(str(folder), create_model_card=False)


def save_grounding_dino(folder: Path) -> None:
    """A tiny Grounding DINO that reads a few words."""
    from transformers import (
        BertConfig,
        BertTokenizer,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessor,
        GroundingDinoProcessor,
        SwinConfig,
    )

    # The network identifies the separators of phrases by BERT's token ids.
    vocabulary = [f"[unused{number}]" for number in range(1030)]
    for number, token in {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 1012: ".", 1029: "?"}.items():
        vocabulary[number] = token
    vocabulary += GROUNDING_WORDS
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    text = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
    )
    image = SwinConfig(
        image_size=64,
        patch_size=2,
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 1, 1],
        window_size=2,
        out_features=["stage2", "stage3", "stage4"],
        out_indices=[2, 3, 4],
    )
    config = GroundingDinoConfig(
        backbone_config=image,
        text_config=text,
        d_model=32,
        encoder_layers=1,
        encoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_layers=2,
        decoder_attention_heads=2,
        decoder_ffn_dim=16,
        num_queries=20,
        num_feature_levels=4,
        max_text_len=32,
        fusion_droppath=0.0,
        init_std=0.5,
    )
    # With this seed, it finds more than one class.
    torch.manual_seed(6)
    GroundingDinoForObjectDetection(config).save_pretrained(folder)
    images = GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})
    GroundingDinoProcessor(images, BertTokenizer(str(folder / "vocab.txt"))).save_pretrained(folder)
