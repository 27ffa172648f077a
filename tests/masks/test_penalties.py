import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsal.masks import penalties

RNG = np.random.default_rng(0)
MASKS = [RNG.uniform(size=(5, 6)), RNG.uniform(size=(4, 5, 6))]


def differences(mask):
    return [np.diff(mask, axis=axis) for axis in range(mask.ndim)]


def isotropic(mask, beta):
    total = 0.0
    for at in np.ndindex(mask.shape):
        steps = []
        for axis in range(mask.ndim):
            after = tuple(i + (a == axis) for a, i in enumerate(at))
            steps.append(mask[after] - mask[at] if after[axis] < mask.shape[axis] else 0.0)
        total += sum(s**2 for s in steps) ** (beta / 2)
    return total


FORMULAS = {
    "share_sum": lambda v, beta: (np.abs(v) ** beta).sum(),
    "share_mean": lambda v, beta: (np.abs(v) ** beta).mean(),
    "share_norm": lambda v, beta: np.linalg.norm(v.ravel(), beta),
    "variation_sum": isotropic,
    "variation_mean": lambda m, beta: sum((np.abs(d) ** beta).mean() for d in differences(m)),
    "variation_norm": lambda m, beta: np.linalg.norm(np.concatenate([d.ravel() for d in differences(m)]), beta),
}


@pytest.mark.parametrize("beta", [1, 2, 2.5, 3, 7])
@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("mask", MASKS, ids=["2d", "3d"])
def test_values_and_slopes(name, beta, mask, x64):
    penalty = getattr(penalties, name)(beta)
    assert np.isclose(penalty(jnp.asarray(mask)), FORMULAS[name](mask, beta), rtol=1e-12)
    step = RNG.normal(size=mask.shape)
    by_hand = (FORMULAS[name](mask + 1e-6 * step, beta) - FORMULAS[name](mask - 1e-6 * step, beta)) / 2e-6
    assert np.isclose((jax.grad(penalty)(jnp.asarray(mask)) * step).sum(), by_hand, rtol=1e-5)


@pytest.mark.parametrize("beta", [1, 1.5, 2, 3])
@pytest.mark.parametrize("name", FORMULAS)
def test_there_is_no_slope_where_there_is_nothing_to_penalise(name, beta):
    slope = jax.grad(getattr(penalties, name)(beta))(jnp.zeros((3, 4, 5)))
    assert (slope == 0).all()


@pytest.mark.parametrize("name", [name for name in FORMULAS if name.startswith("variation")])
def test_an_axis_of_one_voxel_does_not_vary(name):
    mask = jnp.asarray(MASKS[0], jnp.float32)
    penalty = getattr(penalties, name)(2)
    assert np.isclose(penalty(mask[:, None]), penalty(mask), rtol=1e-6)


def test_penalties_are_equal_by_value():
    assert penalties.share_mean(1) == penalties.share_mean(1.0)
    assert penalties.share_mean(1) != penalties.share_mean(2)
    assert hash(penalties.variation_sum(3)) == hash(penalties.variation_sum(3))


def test_exponents_below_one_are_refused():
    for name in FORMULAS:
        with pytest.raises(ValueError, match=r"beta=0\.5"):
            getattr(penalties, name)(0.5)
