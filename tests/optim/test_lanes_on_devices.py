"""Lanes over a mesh of eight virtual CPU devices, in a process of its own: they must be asked for before JAX starts."""

import os
import subprocess
import sys
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np

ROOT = Path(__file__).parents[2]
COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "reduce-scatter", "collective-permute", "collective-broadcast")


def test_eight_devices_give_the_same_and_never_talk():
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    code = "from tests.optim.test_lanes_on_devices import compare; compare()"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["lanes", "groups", "nothing", "program"]


def compare():
    """Run with eight devices and with one."""
    from jaxsal import optim
    from jaxsal.optim import running
    from tests.optim.test_lanes import ARRIVED, GOALS, SOLVER, STOP, WALKER, at_zero, bowl, from_zero, kept, walk, zero

    jax.config.update("jax_numpy_dtype_promotion", "strict")
    jax.config.update("jax_numpy_rank_promotion", "raise")
    mesh = jax.make_mesh((4, 2), ("one", "two"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    assert mesh.size == 8

    # 43 jobs of unequal lengths: five or six for each device
    goals = {"goal": jnp.concatenate([GOALS["goal"] * scale for scale in (1.0, 0.3, 0.1, 0.5)])[:43]}
    options = dict(solver=SOLVER, stop=STOP, lanes=2, chunk=7)
    found = optim.minimise_lanes(bowl, goals, from_zero, mesh=mesh, **options)
    plain = optim.minimise_lanes(bowl, goals, from_zero, **options)
    chex.assert_trees_all_close(kept(found), kept(plain), rtol=1e-5, atol=1e-9)
    assert found.steps.tolist() == plain.steps.tolist()
    assert (found.usage.lanes, plain.usage.lanes) == (16, 2)
    assert found.usage.useful == plain.usage.useful
    print("lanes")

    def scaled(job, group, shared):
        return lambda params: (jnp.sum((params - group * job) ** 2) * shared, ())

    jobs, groups = jnp.arange(55.0).reshape(11, 5) / 50, jnp.arange(1.0, 12.0)
    options = dict(solver=optim.armijo_once(0.1), stop=STOP, shared=jnp.float32(2.0), lanes=3, rows=1)
    found = optim.minimise_groups(scaled, groups, jobs, zero, mesh=mesh, **options)
    plain = optim.minimise_groups(scaled, groups, jobs, zero, **options)
    chex.assert_trees_all_close(kept(found), kept(plain), rtol=1e-5, atol=1e-6)
    print("groups")

    few = optim.minimise_lanes(walk, jnp.array([5.0, 2.0]), at_zero, solver=WALKER, stop=ARRIVED, mesh=mesh)
    none = optim.minimise_lanes(walk, jnp.zeros(0), at_zero, solver=WALKER, stop=ARRIVED, mesh=mesh)
    assert (few.steps.tolist(), none.steps.tolist()) == ([5, 2], [])
    print("nothing")

    # each device has its own queue, hence the whole program, loop and swap, is without communication
    compiled = []
    original = running._turn

    def looked_at(problem, mesh, state, work):
        compiled.append(original.lower(problem, mesh, state, work).compile().as_text())
        assert {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(state)} == {8}
        return original(problem, mesh, state, work)

    running._turn = looked_at
    optim.minimise_lanes(walk, jnp.full(16, 3.0), at_zero, solver=WALKER, stop=ARRIVED, mesh=mesh)
    assert " while(" in compiled[0]
    for name in COLLECTIVES:
        assert name not in compiled[0], name
    print("program")


def test_a_mesh_of_one_device_is_no_mesh():
    from jaxsal import optim
    from tests.optim.test_lanes import ARRIVED, WALKER, at_zero, walk

    mesh = jax.make_mesh((1,), ("all",), axis_types=(jax.sharding.AxisType.Auto,))
    found = optim.minimise_lanes(
        walk, jnp.arange(5.0), at_zero, solver=WALKER, stop=ARRIVED, mesh=mesh, lanes=2, chunk=3
    )
    np.testing.assert_array_equal(found.steps, np.arange(5))
