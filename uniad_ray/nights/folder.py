"""The files of the nights.

WORK/watermark.json                      shards that are done
WORK/nights/<night>/begin.json           first record of a night
WORK/nights/<night>/<step>.json          record of each finished step
WORK/nights/<night>/sample.parquet       measured images, for drift
WORK/nights/<night>/sent/<channel>.json  written after a receiver took the message
WORK/nights/<night>/end.json             last record: the night is finished
WORK/runs/<night>/                       the scoring run
WORK/nights/<night>/<kind>-deleted.json  what retention deleted of a night
WORK/reference/<category>/<bundle>.parquet  measured images of a fit, for drift
WORK/nights.html                         the last nights
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from pydantic import ValidationError

from uniad_ray.archive.stores.location import Location
from uniad_ray.config.base import StrictModel
from uniad_ray.errors import ObjectNotFoundError, RunError
from uniad_ray.nights.model import Begun, NightSummary, Watermark

ModelT = TypeVar("ModelT", bound=StrictModel)

BEGIN: Final = "begin"
END: Final = "end"
SUMMARY: Final = "summary"
PAGE: Final = "nights.html"


class Night:
    """The folder of one night.

    Attributes:
        work: Folder of all nights.
        name: Name of the night.
    """

    def __init__(self, work: Location, name: str) -> None:
        """Takes the place; nothing is read yet."""
        self.work = work
        self.name = name

    @property
    def folder(self) -> Location:
        """Folder of the records."""
        return self.work / "nights" / self.name

    @property
    def run(self) -> Location:
        """Root of the run."""
        return self.work / "runs" / self.name

    @property
    def sample(self) -> Location:
        """The measured images."""
        return self.folder / "sample.parquet"

    def read(self, step: str, model: type[ModelT]) -> ModelT | None:
        """The record of a step; None if the step is not finished.

        Raises:
            RunError: The record is corrupt, or a newer version of uniad_ray wrote it.
        """
        return read_record(self.folder / f"{step}.json", model)

    def write(self, step: str, record: StrictModel) -> None:
        """Writes the record of a finished step."""
        (self.folder / f"{step}.json").write_json(record.model_dump(mode="json"))

    def once(self, step: str, model: type[ModelT], work: Callable[[], ModelT]) -> ModelT:
        """The record of a step, which is done only if it has none.

        A step that is killed before its record is written is done again, so doing it twice must change nothing.
        """
        found = self.read(step, model)
        if found is None:
            found = work()
            self.write(step, found)
        return found


class Nights:
    """All nights below a folder."""

    def __init__(self, work: Location) -> None:
        """Lists the nights and their records."""
        self.work = work
        files = [info.relative.partition("/") for info in (work / "nights").list(suffix=".json")]
        self._records: dict[str, set[str]] = {}
        for name, _, file in files:
            self._records.setdefault(name, set()).add(file.removesuffix(".json"))
        begun = [Night(work, name) for name, records in self._records.items() if BEGIN in records]
        self._started = {night.name: self.begun(night).started_at for night in begun}
        self.all = sorted(begun, key=lambda night: (self._started[night.name], night.name))

    def begun(self, night: Night) -> Begun:
        """First record of a night.

        Raises:
            RunError: The record is corrupt.
        """
        found = night.read(BEGIN, Begun)
        if found is None:
            raise RunError(f"{night.folder}: has no {BEGIN}.json; delete the folder")
        return found

    def has(self, night: Night, record: str) -> bool:
        """Whether a night had a record when the nights were listed."""
        return record in self._records.get(night.name, set())

    @property
    def unfinished(self) -> list[Night]:
        """Nights without their last record, oldest first."""
        return [night for night in self.all if not self.has(night, END)]

    @property
    def last_start(self) -> str | None:
        """Start of the last night, UTC, ISO 8601; None if there is none."""
        return self._started[self.all[-1].name] if self.all else None

    def before(self, night: Night, most: int) -> list[Night]:
        """The last nights that started before a night, oldest first."""
        names = [one.name for one in self.all]
        earlier = self.all[: names.index(night.name)] if night.name in names else self.all
        return earlier[-most:] if most else []

    def summaries(self, most: int) -> list[NightSummary]:
        """Summaries of the last nights, oldest first."""
        found = [night.read(SUMMARY, NightSummary) for night in self.all[-most:]]
        return [summary for summary in found if summary is not None]


def read_watermark(work: Location) -> Watermark | None:
    """Shards that are done; None before the first night."""
    return read_record(work / "watermark.json", Watermark)


def write_watermark(work: Location, watermark: Watermark) -> None:
    """Replaces the watermark."""
    (work / "watermark.json").write_json(watermark.model_dump(mode="json"))


def read_record(location: Location, model: type[ModelT]) -> ModelT | None:
    """A record; None if there is none.

    Raises:
        RunError: The record is corrupt, or a newer version of uniad_ray wrote it.
    """
    try:
        return model.model_validate(location.read_json())
    except ObjectNotFoundError:
        return None
    except ValidationError as error:
        raise RunError(
            f"{location}: corrupt, or written by another version of uniad_ray; use that version, or delete the file to "
            "repeat the step"
        ) from error
