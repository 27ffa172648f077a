"""Progress: the caller's meter as it is, a bar only for work that takes long."""

import io
import time

import pytest
from rich.console import Console

from jaxsal import progress


@pytest.fixture
def terminal(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr("rich.console.Console", lambda **_: Console(file=screen, force_terminal=True, width=80))
    return screen


def test_the_callers_meter_is_used_as_it_is():
    with progress.reporting(progress.silent, "work") as meter:
        assert meter is progress.silent


def test_short_work_shows_nothing(terminal):
    with progress.reporting(None, "work") as meter:
        meter(1, 2, "half")
    assert terminal.getvalue() == ""


def test_long_work_shows_a_bar(terminal):
    with progress.reporting(None, "work", patience=0.05) as meter:
        meter(1, 2, "early")
        time.sleep(0.06)
        meter(1, 2, "half of it")
    assert "half of it" in terminal.getvalue()
    assert "early" not in terminal.getvalue()


def test_a_file_gets_no_bar(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr("sys.stderr", screen)
    with progress.reporting(None, "work", patience=0.0) as meter:
        meter(1, 2, "half")
    assert screen.getvalue() == ""
