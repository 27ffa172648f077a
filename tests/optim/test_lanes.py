import signal

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsal import optim
from jaxsal.optim import Status, budget, queueing, running

SCALES = jnp.array([1.0, 10.0])


def bowl(job, shared):
    """A quadratic around a job's goal, steeper along the second axis."""

    def objective(params):
        return jnp.sum(SCALES.astype(params.dtype) * (params - job["goal"]) ** 2), {"first": params[0]}

    return objective


def from_zero(job, shared):
    return jnp.zeros_like(job["goal"])


SOLVER = optim.armijo_once(0.04)
STOP = optim.any_of(optim.stagnation(5, 1e-6), optim.max_steps(300))
GOALS = {"goal": jax.random.normal(jax.random.key(0), (11, 2)) * jnp.logspace(-3.0, 1, 11)[:, None]}


def one_by_one(jobs, solver=SOLVER, stop=STOP):
    run = jax.jit(lambda job: optim.minimise(bowl(job, ()), from_zero(job, ()), solver=solver, stop=stop))
    return [run(jax.tree.map(lambda a: a[i], jobs)) for i in range(len(jobs["goal"]))]  # noqa: B023


def kept(lanes):
    return tuple(getattr(lanes, name) for name in queueing.Outcome._fields)


def bits(tree):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


# a job that takes a given number of steps: the parameter walks from 0 to its length, one at a time


def walk(job, shared):
    return lambda params: (job - params, ())


def at_zero(job, shared):
    return jnp.zeros_like(job)


def _arrived(state, progress):
    return state, jnp.where(progress.value <= 0, jnp.int32(Status.STAGNATED), jnp.int32(Status.RUNNING))


ARRIVED = optim.StoppingRule(optim.max_steps(1).init, _arrived)
WALKER = optax.sgd(1.0)


def walk_all(lengths, **options):
    return optim.minimise_lanes(
        walk, jnp.asarray(lengths, jnp.float32), at_zero, solver=WALKER, stop=ARRIVED, **options
    )


@pytest.mark.parametrize("lanes", [1, 3, 11, 50, None])
def test_every_job_is_minimised_as_if_alone(lanes):
    found = optim.minimise_lanes(bowl, GOALS, from_zero, solver=SOLVER, stop=STOP, lanes=lanes, chunk=7)
    alone = one_by_one(GOALS)
    assert len(set(found.steps.tolist())) > 3
    assert found.steps.tolist() == [int(lane.steps) for lane in alone]
    assert found.status.tolist() == [int(lane.status) for lane in alone]
    assert found.evaluations.tolist() == [int(lane.evaluations) for lane in alone]
    for name in ("params", "value", "aux"):
        expected = jax.tree.map(lambda *a: jnp.stack(a), *(getattr(lane, name) for lane in alone))
        chex.assert_trees_all_close(getattr(found, name), expected, rtol=1e-5, atol=1e-12)
    assert found.usage.lanes == min(lanes or 16, 11)
    assert found.usage.useful == int(found.evaluations.sum())


def test_double_precision_stays(x64):
    goals = {"goal": jnp.asarray(np.random.default_rng(0).normal(size=(5, 2)))}
    found = optim.minimise_lanes(bowl, goals, from_zero, solver=SOLVER, stop=optim.max_steps(400), lanes=2)
    assert found.params.dtype == found.value.dtype == jnp.float64
    assert found.steps.dtype == jnp.int32
    np.testing.assert_allclose(found.params, goals["goal"], rtol=1e-12)


def test_a_job_is_not_touched_by_the_order_of_the_jobs():
    """Bit for bit: the same program, other neighbours, another lane, another chunk."""
    order = np.random.default_rng(1).permutation(11)
    options = dict(solver=SOLVER, stop=STOP, lanes=4, chunk=7)
    plain = optim.minimise_lanes(bowl, GOALS, from_zero, **options)
    mixed = optim.minimise_lanes(bowl, {"goal": GOALS["goal"][order]}, from_zero, **options)
    assert bits(jax.tree.map(lambda a: a[order], kept(plain))) == bits(kept(mixed))


def fragile(job, shared):
    def objective(params):
        value, aux = bowl(job, shared)(params)
        return jnp.where(jnp.abs(params).max() > job["edge"], jnp.nan, value), aux

    return objective


KERNELS = jax.random.normal(jax.random.key(1), (4, 3, 3, 2))


def bent(job, shared):
    """A network of a convolution, ReLUs and a sum, under a mask."""

    def distance(mask):
        hidden = jax.lax.conv_general_dilated(
            (mask[..., None] * shared)[None],
            KERNELS.transpose(1, 2, 3, 0),
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return jnp.abs(jax.nn.relu(hidden).sum() / 4 - job), ()

    return optim.Composite(distance, optim.MaskPenalty(1.0, 3.0))


def uniform(job, shared):
    return jnp.full(shared.shape[:2], 0.2)


@pytest.mark.parametrize(
    ("solver", "most"),
    [(optim.armijo_once(), 100), (optim.nonnegative(optim.prox_linear()), 40)],
    ids=["armijo_once", "prox_linear"],
)
def test_neighbours_touch_no_bit_and_the_number_of_lanes_only_the_rounding(solver, most):
    features = jax.random.uniform(jax.random.key(2), (5, 6, 2))

    def run(jobs, lanes):
        return optim.minimise_lanes(
            bent, jobs, uniform, shared=features, lanes=lanes, solver=solver, stop=optim.max_steps(most)
        )

    jobs = jnp.array([1.0, 2.0, 4.0, 3.0, 7.0])
    usual, order = run(jobs, 4), np.array([4, 2, 0, 1, 3])
    shuffled = run(jobs[order], 4)
    assert bits(kept(shuffled)) == bits(jax.tree.map(lambda a: a[order], kept(usual)))
    among_others = run(jnp.array([50.0, 2.0, 0.01, 3.0, jnp.nan]), 4)
    same = np.array([1, 3])
    assert bits(jax.tree.map(lambda a: a[same], kept(among_others))) == bits(
        jax.tree.map(lambda a: a[same], kept(usual))
    )
    # a program of another number of lanes may round differently
    alone = run(jobs, 1)
    np.testing.assert_allclose(alone.value, usual.value, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(alone.params, usual.params, rtol=1e-5, atol=1e-5)


def test_a_job_that_becomes_nan_ends_alone_and_is_named():
    options = dict(solver=SOLVER, stop=STOP, lanes=3, chunk=7)
    whole = {**GOALS, "edge": jnp.full(11, jnp.inf)}
    hurt = {**GOALS, "edge": jnp.full(11, jnp.inf).at[jnp.array([4, 9])].set(0.5 * jnp.abs(GOALS["goal"]).max(1)[4])}
    healthy = optim.minimise_lanes(fragile, whole, from_zero, **options)
    found = optim.minimise_lanes(fragile, hurt, from_zero, **options)
    assert np.flatnonzero(np.asarray(found.status) == Status.NOT_FINITE).tolist() == [4, 9]
    others = np.delete(np.arange(11), [4, 9])
    assert bits(jax.tree.map(lambda a: a[others], kept(found))) == bits(
        jax.tree.map(lambda a: a[others], kept(healthy))
    )
    assert healthy.failures() == ()
    assert found.failures() == tuple(f"job {i} became NaN or infinite at step {int(found.steps[i])}" for i in (4, 9))
    assert np.isnan(found.value[4])
    assert np.isfinite(found.params).all()  # where it happened


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_jobs(count):
    found = optim.minimise_lanes(
        bowl, {"goal": GOALS["goal"][:count]}, from_zero, solver=SOLVER, stop=STOP, lanes=8, chunk=7
    )
    assert found.params.shape == (count, 2)
    assert found.aux["first"].shape == found.status.shape == (count,)
    assert found.usage.lanes == count
    assert found.steps.tolist() == [int(lane.steps) for lane in one_by_one(GOALS)[:count]]


def test_new_jobs_and_new_shared_values_compile_nothing(monkeypatch):
    monkeypatch.setattr(queueing, "turn", chex.assert_max_traces(queueing.turn, n=1))
    monkeypatch.setattr(queueing, "begin", chex.assert_max_traces(queueing.begin, n=1))

    def objective(weights, job, shared):
        return lambda params: (jnp.sum((params - job * shared) ** 2) * weights, ())

    for shift in (0.0, 1.0, 2.0):
        # functions that are equal by value are the same function
        found = optim.minimise_lanes(
            optim.Applied(objective, (1.5,)),
            jnp.arange(7.0) + shift,
            at_zero,
            shared=jnp.float32(shift + 1),
            solver=optim.armijo_once(0.25),
            stop=optim.max_steps(60),
            lanes=3,
        )
        np.testing.assert_allclose(found.params, (np.arange(7) + shift) * (shift + 1), atol=1e-5)


def test_buffers_are_donated_and_the_host_is_at_most_one_chunk_ahead(monkeypatch):
    turns, seen_deleted = [], []
    original = running._turn

    def counted(problem, mesh, state, work):
        out = original(problem, mesh, state, work)
        turns.append(1)
        seen_deleted.append(all(leaf.is_deleted() for leaf in jax.tree.leaves(state)))
        return out

    monkeypatch.setattr(running, "_turn", counted)
    found = walk_all([30.0, 5.0, 12.0, 44.0], lanes=2, chunk=10)
    assert all(seen_deleted)
    assert len(turns) == found.usage.chunks + 1


def queue_by_hand(lengths, lanes, chunk):
    """Iterations that a queue computes: whole chunks, of which a lane may use a part."""
    left, waiting, computed = [0] * lanes, [n + 1 for n in lengths], 0  # the last evaluation does not move
    while waiting or any(left):
        left = [rest or (waiting.pop(0) if waiting else 0) for rest in left]
        trips = min(chunk, max(left))
        computed += trips * lanes
        left = [max(rest - trips, 0) for rest in left]
    return computed


@pytest.fixture(scope="module")
def lengths():
    """165 lengths from 36 to 2000 steps, of which lanes that wait for the longest use 47 %."""
    drawn = np.random.default_rng(0).beta(0.8, 0.9, 165)
    drawn = 36 + (drawn - drawn.min()) / np.ptp(drawn) * (2000 - 36)
    return np.rint(drawn).astype(int)


def test_lanes_are_kept_busy_where_plain_vmap_leaves_them_idle(lengths):
    assert (lengths.min(), lengths.max(), len(lengths)) == (36, 2000, 165)
    plain = (lengths + 1).sum() / (165 * (lengths.max() + 1))
    assert 0.44 < plain < 0.5
    found = walk_all(lengths)
    assert found.steps.tolist() == lengths.tolist()
    assert found.usage.useful == (lengths + 1).sum()
    assert found.usage.computed == queue_by_hand(lengths.tolist(), 16, 25)
    assert found.usage.utilisation == found.usage.useful / found.usage.computed > 0.85
    together = walk_all(lengths, lanes=165, chunk=3000)
    assert together.usage.utilisation == pytest.approx(plain)


@pytest.mark.parametrize(("lanes", "chunk"), [(1, 5), (3, 1), (4, 7), (7, 100)])
def test_utilisation_is_that_of_a_queue_by_hand(lanes, chunk):
    some = [3, 40, 1, 0, 17, 17, 9, 28, 2, 33]
    found = walk_all(some, lanes=lanes, chunk=chunk)
    assert found.steps.tolist() == some
    assert found.usage.computed == queue_by_hand(some, lanes, chunk)
    assert found.usage.useful == sum(some) + len(some)


def test_progress_goes_forward_also_within_jobs():
    said = []
    walk_all([40.0, 40.0, 40.0], lanes=1, chunk=10, longest=40, progress=lambda *now: said.append(now))
    done = [now[0] for now in said]
    assert done[0] == 0
    assert done[-1] == 3
    assert done == sorted(done)
    assert 0.25 in done
    assert {now[1] for now in said} == {3}
    assert said[2][2] == "0 of 3 done, 1 running"


@pytest.fixture
def heard():
    """Ctrl-C is heard, also where a shell started the tests in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard")
def test_ctrl_c_gives_what_is_finished():
    usual = signal.getsignal(signal.SIGINT)

    def press(done, total, text):
        if done >= 2:
            signal.raise_signal(signal.SIGINT)

    jobs = [10.0, 500.0, 10.0, 10.0, 400.0, 300.0, 10.0]
    with pytest.raises(KeyboardInterrupt) as caught:
        walk_all(jobs, lanes=2, chunk=15, progress=press)
    assert isinstance(caught.value, optim.Interrupted)
    found = caught.value.lanes
    names = [Status(code).name for code in found.status.tolist()]
    assert names == ["STAGNATED", "RUNNING", "STAGNATED", "STAGNATED", "RUNNING", "RUNNING", "RUNNING"]
    assert found.params[jnp.array([0, 2, 3])].tolist() == [10.0] * 3
    at_work = np.array([1])
    assert (found.steps[at_work] > 0).all()
    assert found.params[at_work].tolist() == found.steps[at_work].tolist()
    waiting = np.array([4, 5, 6])
    assert found.evaluations[waiting].tolist() == [0, 0, 0]
    assert np.isnan(found.params[waiting]).all()
    assert np.isnan(found.value[waiting]).all()
    assert signal.getsignal(signal.SIGINT) is usual


@pytest.mark.usefixtures("heard")
def test_a_second_ctrl_c_stops_at_once():
    from jaxsal.optim.interrupting import interruption_held_back

    def press_twice():
        with interruption_held_back() as interrupted:
            signal.raise_signal(signal.SIGINT)
            assert interrupted()
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        press_twice()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


# groups


def zero(job, group, shared):
    return jnp.zeros_like(job)


@pytest.mark.parametrize("rows", [1, 2, 3, 9, None])
def test_groups_have_their_own_jobs_in_order(rows):
    jobs = jnp.arange(15.0).reshape(5, 3) / 5
    groups = {"scale": jnp.arange(1.0, 6.0)}

    def objective(job, group, shared):
        return lambda params: (jnp.sum((params - group["scale"] * job) ** 2), ())

    solver, stop = optim.armijo_once(0.25), optim.any_of(optim.stagnation(3, 1e-9), optim.max_steps(100))
    found = optim.minimise_groups(objective, groups, jobs, zero, solver=solver, stop=stop, rows=rows, lanes=2, chunk=4)
    np.testing.assert_allclose(found.params, groups["scale"][:, None] * jobs, atol=1e-3)
    assert found.usage.lanes == 2 * min(rows or 5, 5)
    alone = optim.minimise_groups(
        objective,
        {"scale": groups["scale"][3:4]},
        jobs[3:4],
        zero,
        solver=solver,
        stop=stop,
        rows=1,
        lanes=2,
        chunk=4,
    )
    chex.assert_trees_all_close(jax.tree.map(lambda a: a[3:4], kept(found)), kept(alone), rtol=1e-5, atol=1e-7)


def test_what_a_group_shares_is_computed_once_for_all_its_lanes():
    """The product of a group's matrices is one product, not one per lane, and outside the loop."""

    def objective(job, group, shared):
        product = group @ shared
        return lambda params: (jnp.sum((params - (product * job).sum()) ** 2), ())

    problem = queueing.Problem(objective, zero, SOLVER, optim.max_steps(9), 4)
    work = queueing.Work(jnp.ones((2, 6)), jnp.ones((2, 7, 7)), jnp.full(2, 6, jnp.int32), jnp.ones((7, 7)))
    program = jax.make_jaxpr(lambda work: queueing.turn(problem, queueing.begin(problem, work, 1, 6), work))(work)
    products = list(matrix_products(program.jaxpr, False))
    assert products
    assert all(product == ((7, 7), False) for product in products)


def matrix_products(program, looped):
    """Shape of every product, and whether it stands in a loop."""
    for eqn in program.eqns:
        if eqn.primitive.name == "dot_general":
            yield eqn.outvars[0].aval.shape, looped
        for body in bodies(eqn):
            yield from matrix_products(body, looped or eqn.primitive.name == "while")


def bodies(eqn):
    """Programs within an operation."""
    for value in jax.tree.leaves(list(eqn.params.values()), is_leaf=lambda v: hasattr(v, "eqns")):
        value = getattr(value, "jaxpr", value)
        if hasattr(value, "eqns"):
            yield value


# memory


def heavy(job, shared):
    """Every lane holds matrices of 64 KiB while it is evaluated."""

    def objective(params):
        waves = jnp.sin(jnp.outer(params, jnp.arange(128.0)))
        return jnp.sum((waves @ waves) ** 2) * job, ()

    return objective


def start_heavy(job, shared):
    return jnp.ones(128) * job


def bytes_with(lanes):
    problem = queueing.Problem(
        optim.Applied(_first_and_last, (heavy,)), optim.Applied(_first_and_last, (start_heavy,)), SOLVER, STOP, 25
    )
    work = queueing.Work(jnp.ones((1, 40)), (), jnp.array([40], jnp.int32), ())
    state = jax.eval_shape(lambda work: running._begin(problem, None, 1, lanes, work), work)
    return budget.compiled_bytes(running._turn.lower(problem, None, state, work).compile())


def _first_and_last(fn, job, group, shared):
    return fn(job, shared)


def test_lanes_are_chosen_to_fit_a_memory_budget():
    limit = bytes_with(5) + 100
    found = optim.minimise_lanes(heavy, jnp.ones(40), start_heavy, solver=SOLVER, stop=STOP, memory=limit)
    assert 4 <= found.usage.lanes <= 5
    assert bytes_with(found.usage.lanes) <= limit < bytes_with(7)


def test_a_budget_below_one_lane_is_refused():
    with pytest.raises(ValueError, match=r"memory got 1000 bytes, one lane needs \d+: give more"):
        optim.minimise_lanes(heavy, jnp.ones(40), start_heavy, solver=SOLVER, stop=STOP, memory=1000)


BAD = [
    (dict(lanes=0), ValueError, "lanes got 0, at least 1"),
    (dict(lanes=2.0), TypeError, "lanes got 2.0, a whole number"),
    (dict(chunk=0), ValueError, "chunk got 0, at least 1"),
    (dict(chunk=True), TypeError, "chunk got True"),
    (dict(jobs={"goal": jnp.ones((3, 2)), "x": jnp.ones(4)}), ValueError, r"shapes \[\(3, 2\), \(4,\)\]; every leaf"),
    (dict(jobs=()), ValueError, r"The jobs have shapes \[\]"),
    (dict(jobs={"goal": jnp.float32(1)}), ValueError, r"The jobs have shapes \[\(\)\]"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD)
def test_bad_arguments_are_answered(change, error, message):
    arguments = dict(objective=bowl, jobs=GOALS, initial=from_zero, solver=SOLVER, stop=STOP) | change
    with pytest.raises(error, match=message):
        optim.minimise_lanes(**arguments)


def test_groups_and_their_jobs_must_agree():
    with pytest.raises(ValueError, match="There are 3 groups, but jobs of 2 groups"):
        optim.minimise_groups(bowl, {"scale": jnp.ones(3)}, jnp.ones((2, 4)), zero, solver=SOLVER, stop=STOP)


def test_inside_jit_there_is_no_host_to_swap_lanes():
    with pytest.raises(TypeError, match=r"use jax.vmap of minimise inside"):
        jax.jit(walk_all)(jnp.ones(3))
