"""A training loop: a pure loss, batches by step number, exact resumption from checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class FitState(NamedTuple):
    """All that a run needs to go on.

    Attributes:
        step: number of updates made, int32[].
        params: the parameters.
        optimiser: the optimiser's state.
        average: exponential moving average of the parameters; what one predicts with.
    """

    step: jax.Array
    params: Any
    optimiser: optax.OptState
    average: Any


def fit(
    loss: Callable[[Any, Any, jax.Array], jax.Array],
    params: Any,
    batch_at: Callable[[int], Any],
    optimiser: optax.GradientTransformation,
    *,
    steps: int,
    key: jax.Array,
    decay: float = 0.999,
    checkpoints: Path | None = None,
    every: int = 500,
    report: Callable[[int, float], None] | None = None,
) -> FitState:
    """Minimise a loss over batches; the same arguments give the same parameters, interrupted or not.

    The average follows a_t = d_t a_{t-1} + (1 - d_t) p_t with d_t = min(decay, (1 + t) / (10 + t)).

    Args:
        loss: (params, batch, key) -> float32[]; traced once.
        params: the initial parameters.
        batch_at: step number -> batch; a pure function of the number, so that a resumed run sees what an
            uninterrupted one would have seen.
        optimiser: an optax transform.
        steps: number of updates in all, those before a resumption included.
        key: random key; step t uses ``fold_in(key, t)``.
        decay: of the moving average.
        checkpoints: folder of the checkpoints; a run continues from the newest one there. None: keep none.
        every: updates between two checkpoints.
        report: called with step number and loss after each update.

    Returns:
        The final state.

    Raises:
        FloatingPointError: the loss is not finite.
        ValueError: the checkpoint is beyond `steps`.
    """
    state = FitState(jnp.zeros((), jnp.int32), params, optimiser.init(params), params)
    if checkpoints is not None:
        state = restore(checkpoints, state)
        if int(state.step) > steps:
            raise ValueError(
                f"{checkpoints} holds a run of {int(state.step)} steps, {steps} were asked for: name another folder"
            )

    @jax.jit
    def update(state: FitState, batch: Any) -> tuple[FitState, jax.Array]:
        value, gradient = jax.value_and_grad(loss)(state.params, batch, jax.random.fold_in(key, state.step))
        with jax.numpy_dtype_promotion("standard"):  # Adam raises a float to its integer count
            change, inner = optimiser.update(gradient, state.optimiser, state.params)
        new = optax.apply_updates(state.params, change)
        count = state.step.astype(jnp.float32)
        rate = jnp.minimum(decay, (1.0 + count) / (10.0 + count))
        average = jax.tree.map(lambda a, p: rate * a + (1.0 - rate) * p, state.average, new)
        return FitState(state.step + 1, new, inner, average), value

    for step in range(int(state.step), steps):
        state, value = update(state, batch_at(step))
        if not jnp.isfinite(value):
            raise FloatingPointError(
                f"the loss is {float(value)} at step {step}; lower the learning rate or look for bad values in the data"
            )
        if report is not None:
            report(step + 1, float(value))
        if checkpoints is not None and ((step + 1) % every == 0 or step + 1 == steps):
            save(checkpoints, state)
    return state


def save(folder: Path, state: FitState) -> None:
    """Write a checkpoint (whole or not at all) and drop all but the two newest."""
    import shutil

    from orbax.checkpoint import v1 as ocp

    folder.mkdir(parents=True, exist_ok=True)
    ocp.save(folder.resolve() / _name(int(state.step)), state._asdict(), overwrite=True)  # type: ignore[arg-type]
    for old in _found(folder)[:-2]:
        shutil.rmtree(old)


def restore(folder: Path, like: FitState) -> FitState:
    """The newest checkpoint in a folder, or the given state where there is none."""
    from orbax.checkpoint import v1 as ocp

    found = _found(folder)
    if not found:
        return like
    return FitState(**ocp.load(found[-1].resolve(), like._asdict()))  # type: ignore[arg-type]


def _name(step: int) -> str:
    return f"step_{step:08d}"


def _found(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob("step_*") if p.name[5:].isdigit()) if folder.is_dir() else []
