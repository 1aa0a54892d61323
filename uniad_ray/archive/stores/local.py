"""Objects as files on a local or mounted file system."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from uniad_ray.archive.stores.base import StoredObject, temporary_name, too_large
from uniad_ray.errors import ObjectDeniedError, ObjectExistsError, ObjectNotFoundError, StoreError

_NO_SUCH_OBJECT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
_TIMES = re.compile(r"-(-?\d+)")
_SECOND_NS = 10**9
_COARSEST_SECONDS = 2.0


class LocalStore:
    """The store of absolute local paths; see `Store` for the methods."""

    def read(self, path: str, max_bytes: int | None) -> bytes:
        """The whole file."""
        with _store_errors(path), self.open_seekable(path) as file:
            size = os.fstat(file.fileno()).st_size
            if max_bytes is not None and size > max_bytes:
                raise too_large(path, size, max_bytes)
            # The file may grow meanwhile: one extra byte shows that it exceeds the limit.
            data = file.read(-1 if max_bytes is None else max_bytes + 1)
            if max_bytes is not None and len(data) > max_bytes:
                raise too_large(path, len(data), max_bytes)
            return data

    def write(self, path: str, data: bytes, *, if_absent: bool) -> None:
        """Writes a temporary file in the same folder, syncs it, then renames or links it."""
        target = Path(path)
        with _store_errors(path):
            if if_absent and target.exists():
                raise ObjectExistsError(f"{path} already exists")
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(temporary_name(uuid.uuid4().hex))
            try:
                _write_new_file(temporary, data)
                if if_absent:
                    _link(temporary, target)
                else:
                    temporary.replace(target)
                _sync_folder(target.parent)
            finally:
                temporary.unlink(missing_ok=True)

    def exists(self, path: str) -> bool:
        """Whether `path` is a regular file."""
        with _store_errors(path):
            return Path(path).is_file()

    def status(self, path: str) -> StoredObject:
        """The status of a file; links are followed."""
        with _store_errors(path):
            try:
                status = os.stat(path)  # noqa: PTH116 - as in listings
            except OSError as error:
                if isinstance(error, _NO_SUCH_OBJECT) or error.errno == errno.ENAMETOOLONG:
                    raise ObjectNotFoundError(f"{path} does not exist; check the path") from error
                raise
        if not stat.S_ISREG(status.st_mode):
            raise ObjectNotFoundError(f"{path}: not a regular file, but a folder, a pipe, a socket or a device")
        return StoredObject("", status.st_size, _version(status))

    def list(self, path: str, *, with_unusable: bool = False) -> Iterator[StoredObject]:
        """The regular files below `path`. Links are followed; a broken or circular link is unusable."""
        return _walk(path, "", frozenset(), with_unusable)

    def open_seekable(self, path: str) -> BinaryIO:
        """The file, open for reading."""
        with _store_errors(path):
            try:
                return Path(path).open("rb")
            except _NO_SUCH_OBJECT as error:
                raise ObjectNotFoundError(f"{path}: no such file; check the path") from error

    def delete(self, path: str) -> None:
        """Deletes one file."""
        with _store_errors(path), contextlib.suppress(*_NO_SUCH_OBJECT):
            # macOS returns EPERM for unlinking a folder.
            if not Path(path).is_dir():
                Path(path).unlink()

    def delete_tree(self, path: str) -> None:
        """Deletes the folder, or only its contents if it is a link."""
        folder = Path(path)
        with _store_errors(path), contextlib.suppress(FileNotFoundError):
            if folder.is_symlink():
                for child in folder.iterdir():
                    if child.is_dir() and not child.is_symlink():
                        shutil.rmtree(child)
                    else:
                        child.unlink(missing_ok=True)
            elif folder.is_dir():
                shutil.rmtree(folder)


def seconds_to_settle(version: str, now: float) -> float:
    """How long to wait until any later change of a local file must change its version.

    Some file systems (FAT, SMB, NFS) round time stamps to one or two seconds: a file that is read and then overwritten
    within that time keeps its version.

    Args:
        version: The version of the file.
        now: The current time, seconds since the epoch.

    Returns:
        Seconds; 0 for time stamps that are not rounded.
    """
    times = [int(time) for time in _TIMES.findall(version)]
    if any(time % _SECOND_NS for time in times):
        return 0.0
    age = now - max(times) / _SECOND_NS
    return max(0.0, _COARSEST_SECONDS - max(0.0, age))


def _walk(folder: str, prefix: str, above: frozenset[tuple[int, int]], with_unusable: bool) -> Iterator[StoredObject]:
    """The files below `folder`; `above` holds the identities of its parent folders."""
    try:
        identity, entries = _children(folder, above)
    except StoreError as error:
        if not (with_unusable and prefix):
            raise
        yield _unusable(folder, prefix.removesuffix("/"), error)
        return
    for entry, is_folder in entries:
        relative = prefix + entry.name
        if is_folder:
            yield from _walk(entry.path, f"{relative}/", above | {identity}, with_unusable)
            continue
        try:
            status = _status(entry)
        except StoreError as error:
            if not with_unusable:
                raise
            yield _unusable(entry.path, relative, error)
            continue
        if status is None:
            continue
        if stat.S_ISREG(status.st_mode):
            yield StoredObject(relative, status.st_size, _version(status))
        elif with_unusable:
            yield StoredObject(relative, 0, "", "not a regular file, but a pipe, a socket or a device")


def _children(
    folder: str, above: frozenset[tuple[int, int]]
) -> tuple[tuple[int, int], list[tuple[os.DirEntry[str], bool]]]:
    """Identity and entries of a folder, and whether each is a folder; no entries if it does not exist."""
    with _store_errors(folder):
        try:
            status = os.stat(folder)  # noqa: PTH116 - follows links
            with os.scandir(folder) as found:
                entries = [(entry, _is_folder(entry)) for entry in found]
        except (FileNotFoundError, NotADirectoryError):
            return (0, 0), []
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        raise StoreError(f"{folder}: a link points to a parent folder; remove the link")
    # Sort folders with a trailing slash, so that whole paths are in byte order: `a-b`, `a/x`, `a0`.
    entries.sort(key=lambda item: os.fsencode(item[0].name) + (b"/" if item[1] else b""))
    return identity, entries


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        # A link that cannot be followed: `_status` gives the reason.
        return False


def _status(entry: os.DirEntry[str]) -> os.stat_result | None:
    """The status of a file; None if it was deleted meanwhile."""
    with _store_errors(entry.path):
        try:
            return entry.stat()
        except FileNotFoundError as error:
            if entry.is_symlink():
                raise StoreError(f"{entry.path}: broken link; fix or remove it") from error
            return None


def _version(status: os.stat_result) -> str:
    # Nobody can set the time of the last change of the inode, as `cp -p` and rsync set that of the content.
    return f"{status.st_size}-{status.st_mtime_ns}-{status.st_ctime_ns}"


def _unusable(path: str, relative: str, error: StoreError) -> StoredObject:
    return StoredObject(relative, 0, "", str(error).removeprefix(path).removeprefix(": "))


def _write_new_file(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _link(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except FileExistsError as error:
        raise ObjectExistsError(f"{target} already exists") from error


def _sync_folder(folder: Path) -> None:
    """Makes the new name survive a power failure, if the file system supports it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _store_errors(path: str) -> Iterator[None]:
    """Turns the operating system's errors into StoreError."""
    try:
        yield
    except PermissionError as error:
        raise ObjectDeniedError(f"{path}: permission denied; grant access, or use another path") from error
    except (FileExistsError, NotADirectoryError) as error:
        raise StoreError(f"{path}: a parent of this path is a file, not a folder; use another path") from error
    except IsADirectoryError as error:
        raise StoreError(f"{path} is a folder; use another path for the file") from error
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror or error}; check the disk and the path") from error
