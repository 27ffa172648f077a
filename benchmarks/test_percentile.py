"""The 95th percentile of a map at full size, by bisection and by sorting.

``python -m pytest benchmarks/test_percentile.py --benchmark-only``: compare the rows' medians.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsal.masks.percentile import percentile

WAYS = {
    "bisection": jax.jit(lambda x: percentile(x, 95.0, (0, 1, 2))),
    "sorting (jnp.percentile)": jax.jit(lambda x: jnp.percentile(x, 95.0, keepdims=True)),
}


@pytest.mark.parametrize("way", WAYS)
def test_percentile_of_a_map(benchmark, way):
    x = jax.random.normal(jax.random.key(0), (164, 172, 202))
    found = benchmark(lambda: WAYS[way](x).block_until_ready())
    np.testing.assert_allclose(float(found.squeeze()), np.percentile(np.asarray(x), 95), rtol=1e-5)
