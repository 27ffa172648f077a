"""The page on conversion runs as it is printed."""

import re
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the page converts a network of PyTorch")

PAGE = (Path(__file__).parents[2] / "docs" / "converting.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.filterwarnings("ignore::UserWarning")  # random weights explain little, and jaxsal says so
def test_the_page_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "page"}
    for block in BLOCKS:
        exec(compile(block, "converting.md", "exec"), names)
    assert "max |difference|" in capsys.readouterr().out
    assert len(BLOCKS) == 3
