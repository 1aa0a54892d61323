from __future__ import annotations

import io
import logging

import pytest

from uniad_ray import progress as module
from uniad_ray.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_terminal_shows_a_bar() -> None:
    stream = Terminal()
    with Progress("scoring", 10, stream=stream) as progress:
        progress.advance(4, 1)
        progress.advance(6)
    shown = stream.getvalue()
    assert "scoring" in shown
    assert "10/10" in shown
    assert "image/s" in shown
    assert "errors=1" in shown


def test_without_terminal_lines_are_logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    with caplog.at_level(logging.INFO, "uniad_ray"), Progress("scoring", 100, stream=io.StringIO()) as progress:
        clock[0] = 5.0
        progress.advance(10)
        clock[0] = 20.0
        progress.advance(30, 2)
        clock[0] = 21.0
        progress.advance(60)
    assert caplog.messages == [
        "scoring: 100 images",
        "scoring: 40 of 100 images, 2.0 images/s, 2 errors, 30 s left",
        "scoring: 100 of 100 images, 4.8 images/s, 2 errors",
    ]


def test_lines_name_the_phase_and_no_time_before_it_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    progress = Progress("fitting", 1000, stream=io.StringIO())
    clock[0] = 30.0
    progress.advance(10)
    assert progress.line() == "fitting: 10 of 1000 images, 0.3 images/s, 0 errors"
    progress.say("synthetic anomalies, fold 2 of 5")
    progress.advance(10)
    assert progress.line() == (
        "fitting, synthetic anomalies, fold 2 of 5: 20 of 1000 images, 0.7 images/s, 0 errors, 1470 s left"
    )
    # Work goes on as long as images are left.
    clock[0] = 1e-3 + 30.0
    progress.advance(979)
    assert progress.line().endswith(", 1 s left")
    progress.say("")
    progress.advance(1)
    assert progress.line() == "fitting: 1000 of 1000 images, 33.3 images/s, 0 errors"


def test_bar_names_the_phase_and_claims_no_time_at_the_end() -> None:
    stream = Terminal()
    with Progress("fitting", 10, stream=stream) as progress:
        progress.say("calibration")
        progress.advance(10)
    last = stream.getvalue().split("\r")[-1]
    assert "fitting, calibration" in last
    assert "10/10" in last
    assert "almost done" in last
    assert "<00:00" not in last
