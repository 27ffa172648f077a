"""What all masks on the input have of the lanes they run on."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsal import optim
from jaxsal.masks import extremal_perturbation, fills, group_mask, meaningful_perturbation

ROOT = Path(__file__).parents[2]
EXTREMAL = dict(step=3, smoothness=3.0, fill="constant")
GROUP = dict(beta1=1, beta2=1, lam2=0.001)


def network(x):
    return jnp.stack([x[:, 1:4, 1:4].mean((1, 2, 3)), 2 * x[:, 4:, 3:].mean((1, 2, 3))], axis=-1)


@pytest.fixture(scope="module")
def x():
    return jax.random.uniform(jax.random.key(0), (3, 8, 8, 1), minval=0.5)


def meaningful(x, **options):
    return meaningful_perturbation(network, x, outputs="all", factor=2, fill="constant", **options)


def extremal(x, **options):
    return extremal_perturbation(network, x, outputs="all", area=[0.2, 0.4], **EXTREMAL, **options)


def group(x, **options):
    return group_mask([network] * 3, x, 1, goal=0.0, lam1=[0.001, 0.01], **GROUP, **options)


METHODS = pytest.mark.parametrize("method", [meaningful, extremal, group])


def arrays(result):
    return {name: leaf for name, leaf in vars(result).items() if name not in ("lanes", "game", "usage")}


@pytest.mark.parametrize("method", [meaningful, extremal])
def test_no_more_lanes_than_asked_for_and_the_same_masks(method, x):
    every = method(x, max_steps=6)
    jobs = every.status.size
    assert every.usage.lanes == jobs
    for batch_size, lanes in ((1, 1), (jobs // 3 + 1, jobs // 3), (2 * jobs // 3, 2 * jobs // 3)):
        found = method(x, max_steps=6, batch_size=batch_size)
        assert found.usage.lanes == lanes
        assert found.usage.useful == every.usage.useful == 7 * jobs
        for a, b in zip(jax.tree.leaves(arrays(found)), jax.tree.leaves(arrays(every)), strict=True):
            np.testing.assert_allclose(a, b, atol=2e-5)


@METHODS
def test_ctrl_c_gives_what_is_finished(method, x):
    usual = signal.default_int_handler  # a background job of a shell has another one
    before = signal.signal(signal.SIGINT, usual)

    def press(done, total, text):
        if done >= 1:
            signal.raise_signal(signal.SIGINT)

    more = {} if method is group else {"batch_size": 1}
    try:
        with pytest.raises(optim.Interrupted) as caught:
            method(x, max_steps=4, progress=press, **more)
        assert signal.getsignal(signal.SIGINT) is usual
    finally:
        signal.signal(signal.SIGINT, before)
    statuses = np.asarray(caught.value.lanes.status)
    assert statuses.shape == {meaningful: (3, 2), extremal: (3, 4), group: (3, 2)}[method]
    assert (statuses == optim.Status.MAX_STEPS).any()
    assert (statuses == optim.Status.RUNNING).any()


def test_a_users_rule_sees_masks_and_what_the_bounds_leave_of_the_gradient(x):
    # all of the mask is pushed out at 1: nothing is left to do there, and the rule knows
    recipe = dict(fill=fills.constant(0.0), score="output", game="preservation", lam1=0.0, lam2=0.0, factor=2)
    found = meaningful_perturbation(
        lambda x: x.mean((1, 2)), x, **recipe, solver=optim.barzilai_borwein(), stop=optim.gradient_norm(1e-6),
        max_steps=60,
    )  # fmt: skip
    assert found.status_names == ["converged"] * 3
    assert (found.mask == 1).all()


def test_an_expensive_state_is_made_for_the_images_at_work_alone(x):
    # all that is held for every image is the image
    for fill in (fills.blur(2.0, levels=16), fills.pyramid(2.0)):
        assert fill.prepare(x) is x
        assert fill.expand(x[0]).shape[1:] == x.shape[1:]


def test_images_on_several_devices_have_the_same_masks():
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    code = "from tests.masks.test_optimising import compare; compare()"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["meaningful", "extremal", "group"]


def compare():
    """Run with two devices and with one."""
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    jax.config.update("jax_numpy_rank_promotion", "raise")
    mesh = jax.make_mesh((2,), ("devices",), axis_types=(jax.sharding.AxisType.Auto,))
    x = jax.random.uniform(jax.random.key(0), (3, 8, 8, 1), minval=0.5)
    for method in (meaningful, extremal, group):
        found, plain = method(x, max_steps=4, mesh=mesh), method(x, max_steps=4)
        for a, b in zip(jax.tree.leaves(arrays(found)), jax.tree.leaves(arrays(plain)), strict=True):
            np.testing.assert_allclose(a, b, atol=2e-5)
        assert found.usage.useful == plain.usage.useful
        print(method.__name__)
