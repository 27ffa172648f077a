"""Line searches of jaxsal and of optax under vmap: evaluations and seconds to the same value.

Run with ``python -m benchmarks.line_searches``.
"""

import statistics
import time

import jax
import jax.numpy as jnp
import optax

from jaxsal import optim

_LANES, _PARAMETERS, _HIDDEN = 16, 512, 256
# shares of the way from the start to the minimum that are left
_NEAR = {"backtracking": 4e-3, "lbfgs": 1e-3}


def _solvers() -> dict[str, dict[str, optax.GradientTransformation]]:
    search = optax.scale_by_backtracking_linesearch(30, decrease_factor=0.5, increase_factor=1.5, max_learning_rate=1e6)
    return {
        "backtracking": {"jaxsal": optim.backtracking(1.0, 0.5, 1.5), "optax": optax.chain(optax.sgd(1.0), search)},
        "lbfgs": {"jaxsal": optim.lbfgs(), "optax": optax.lbfgs()},
    }


def _objective(weights: jax.Array, readout: jax.Array, curvatures: jax.Array):
    """A small network's output brought to 1, with a quadratic whose curvatures differ 90-fold."""

    def objective(p: jax.Array):
        distance = readout @ jnp.tanh(weights @ p) - 1
        return distance**2 + 0.05 * jnp.sum(curvatures * (p - 0.1) ** 2), ()

    return objective


def main() -> None:
    """Print a line per solver."""
    keys = jax.random.split(jax.random.key(0), 3)
    weights = jax.random.normal(keys[0], (_HIDDEN, _PARAMETERS)) / _PARAMETERS**0.5
    readouts = jax.random.normal(keys[1], (_LANES, _HIDDEN)) / _HIDDEN**0.5
    curvatures = jnp.exp(jax.random.uniform(keys[2], (_LANES, _PARAMETERS), minval=-3.0, maxval=1.5))
    start = jnp.zeros(_PARAMETERS)

    def solve(solver, stop, readout, curvature):
        return optim.minimise(_objective(weights, readout, curvature), start, solver=solver, stop=stop)

    least = jax.jit(jax.vmap(lambda r, c: solve(optim.lbfgs(), optim.max_steps(300), r, c).value))(readouts, curvatures)
    first = jax.vmap(lambda r, c: _objective(weights, r, c)(start)[0])(readouts, curvatures)
    for name, pair in _solvers().items():
        targets = least + _NEAR[name] * (first - least)
        for package, solver in pair.items():

            @jax.jit
            @jax.vmap
            def run(readout, curvature, target, solver=solver):
                stop = optim.any_of(optim.target_value(target), optim.max_steps(1500))
                return solve(solver, stop, readout, curvature)

            lanes, seconds = jax.block_until_ready(run(readouts, curvatures, targets)), []
            for _ in range(5):
                begin = time.perf_counter()
                jax.block_until_ready(run(readouts, curvatures, targets))
                seconds.append(time.perf_counter() - begin)
            reached = int((lanes.status == optim.Status.TARGET_REACHED).sum())
            print(
                f"{name:13}{package:7} {reached} of {_LANES} lanes there, evaluations: mean "
                f"{float(lanes.evaluations.mean()):.0f}, most {int(lanes.evaluations.max())}; "
                f"{1e3 * statistics.median(seconds):.1f} ms"
            )


if __name__ == "__main__":
    main()
