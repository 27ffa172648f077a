"""What a wheel holds: every package, the weights, the converters under their name."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def folders_of_code() -> set[str]:
    """Names of the packages that lie in the tree, the converters under the name they are imported by."""
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "jaxsal").rglob("*.py")}
    converters = (path.parent.relative_to(ROOT).parts for path in (ROOT / "converters").rglob("*.py"))
    return found | {".".join(("jaxsal", *parts)) for parts in converters}


def test_every_package_is_listed():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert set(settings["packages"]) == folders_of_code()


def test_a_wheel_holds_code_data_and_converters(tmp_path):
    pytest.importorskip("setuptools")
    build = (
        "import sys; from setuptools import build_meta;"
        "build_meta.build_wheel(sys.argv[1], config_settings={'--build-option': ['-q']})"
    )
    copy = tmp_path / "source"
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=copy, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for package in folders_of_code():
        assert f"{package.replace('.', '/')}/__init__.py" in names
    for data in ("jaxsal/report/style.css", "jaxsal/zoo/weights/morphometry-2mm.safetensors"):
        assert data in names
    assert not any(name.startswith(("tests/", "benchmarks/", "notebooks/")) for name in names)
