"""Strict JAX for every test, and the real data where it is at hand."""

import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest


class _Strict:
    """Refuses implicit promotion, in tests and in the examples of docstrings; pages show what users write."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        strict = item.path.suffix != ".md"
        jax.config.update("jax_numpy_dtype_promotion", "strict" if strict else "standard")
        jax.config.update("jax_numpy_rank_promotion", "raise" if strict else "allow")


class _Forgetting:
    """Lets go of compiled programs now and then: a process can map so many of them, and dies beyond."""

    def __init__(self) -> None:
        self.tests = 0

    def pytest_runtest_teardown(self) -> None:
        self.tests += 1
        if self.tests % 50 == 0:
            jax.clear_caches()


def pytest_configure(config: pytest.Config) -> None:
    """Also for the examples in docstrings and pages, which lie elsewhere."""
    config.pluginmanager.register(_Strict())
    config.pluginmanager.register(_Forgetting())


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real scans and weights beside the checkout; tests that need them skip without."""
    path = Path(os.environ.get("JAXSAL_SHARED", Path(__file__).parents[2] / "shared"))
    if not path.is_dir():
        pytest.skip(f"real data not found: {path} (set JAXSAL_SHARED to its folder)")
    return path


@pytest.fixture
def x64():
    """Double precision for one test."""
    with jax.enable_x64(True):
        yield


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where everything is installed (``JAXSAL_NO_SKIPS=1``), a skipped test is a failure that hides."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("JAXSAL_NO_SKIPS") and reporter and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
