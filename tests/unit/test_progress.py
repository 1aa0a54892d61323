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
        "scoring: 100 of 100 images, 4.8 images/s, 2 errors, 0 s left",
    ]
