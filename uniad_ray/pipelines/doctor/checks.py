"""The result of a check."""

from __future__ import annotations

from typing import Literal

from uniad_ray.config.base import StrictModel

Status = Literal["ok", "warning", "failed"]


class Check(StrictModel):
    """The result of one check.

    Attributes:
        name: What was checked, such as `memory`.
        where: Machine, store or file that was checked; empty if there is only one.
        status: `failed` if the work cannot be done, `warning` if it may be slow or incomplete.
        found: What was found.
        advice: What to do; None if the status is `ok`.
    """

    name: str
    where: str = ""
    status: Status
    found: str
    advice: str | None = None


def passed(name: str, found: str, where: str = "") -> Check:
    """A check with status `ok`."""
    return Check(name=name, where=where, status="ok", found=found)


def warned(name: str, found: str, advice: str, where: str = "") -> Check:
    """A check with status `warning`."""
    return Check(name=name, where=where, status="warning", found=found, advice=advice)


def failed(name: str, found: str, advice: str, where: str = "") -> Check:
    """A check with status `failed`."""
    return Check(name=name, where=where, status="failed", found=found, advice=advice)


def from_error(name: str, error: Exception, where: str = "") -> Check:
    """A failed check from an error of this package, whose message is `what is wrong; what to do`."""
    found, _, advice = str(error).partition("; ")
    return failed(name, found, advice or "see the message", where)
