"""Prediction and input gradient of the network of Table 1 at full size, against PyTorch.

``python -m pytest benchmarks/test_input_gradient.py --benchmark-only``: compare the rows' medians.
"""

import jax
import numpy as np
import pytest
from flax import nnx

from jaxsal import zoo
from jaxsal.engine.lower import lower
from jaxsal.zoo.morphometry import REBSAMEN_BLOCKS

torch = pytest.importorskip("torch", reason="the peer needs torch==2.13.0")

from benchmarks.peers import torch_tail  # noqa: E402

SHAPE = (164, 172, 202)


@pytest.fixture(scope="module")
def problem():
    model = zoo.MorphometryVGG(165, rngs=nnx.Rngs(0))
    model.eval()
    return model, jax.random.uniform(jax.random.key(0), (1, *SHAPE, 1))


@pytest.mark.parametrize("way", ["jaxsal", "torch"])
def test_the_input_gradient(benchmark, problem, way):
    model, x = problem
    if way == "jaxsal":
        gradient = jax.jit(jax.grad(lower(lambda x: model(x)[0, 3])))

        def run():
            return np.asarray(gradient(x))[0, ..., 0]
    else:
        network = torch_tail(model, REBSAMEN_BLOCKS, 0, pooled=False)
        image = torch.from_numpy(np.moveaxis(np.array(x), -1, 1).copy())

        def run():
            leaf = image.clone().requires_grad_(True)
            (found,) = torch.autograd.grad(network(leaf)[0, 3], leaf)
            return found.numpy()[0, 0]

    found = benchmark.pedantic(run, rounds=5, warmup_rounds=1)
    same = np.corrcoef(found.ravel(), gradients.setdefault("first", found).ravel())[0, 1]
    # where two values of a pool differ by rounding, either may win
    assert same > 0.999


gradients: dict = {}
