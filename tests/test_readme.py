"""The README's examples run as they are printed."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with a scan of the name that the README uses."""
    from jaxsal.data import default_image

    monkeypatch.chdir(tmp_path)
    default_image().save(tmp_path / "sub-01_T1w.nii.gz")
    return tmp_path


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
@pytest.mark.filterwarnings("ignore::UserWarning")  # random weights explain little, and jaxsal says so
def test_the_examples_run(block, folder, capsys):
    exec(compile(block, "README.md", "exec"), {})
    assert capsys.readouterr().out


def test_there_are_examples():
    assert len(BLOCKS) >= 2
