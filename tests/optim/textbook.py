"""The solvers' textbooks, written out in numpy and float64."""

import itertools

import numpy as np


def backtracking(f, gradient, x, *, step_size, decrease, increase, sufficient, trials):
    """Every point at which the objective is evaluated, and whether it was accepted."""
    points, accepted = [x], [True]
    tau = step_size
    while len(points) < trials:
        trial = x - tau * gradient(x)
        points.append(trial)
        accepted.append(f(trial) <= f(x) - sufficient * tau * (gradient(x) ** 2).sum())
        tau *= increase if accepted[-1] else decrease
        x = trial if accepted[-1] else x
    return np.array(points), accepted


def barzilai_borwein(f, gradient, x, *, first_length, long, memory, trials):
    """Every point at which the objective is evaluated."""
    points, values = [x], [f(x)]
    alpha = first_length / np.linalg.norm(gradient(x))
    while len(points) < trials:
        trial = x - alpha * gradient(x)
        points.append(trial)
        if f(trial) <= max(values[-memory:]) - 1e-4 * alpha * (gradient(x) ** 2).sum():
            s, y = trial - x, gradient(trial) - gradient(x)
            alpha = s @ s / (s @ y) if long else s @ y / (y @ y)
            x = trial
            values.append(f(x))
        else:
            alpha /= 2
    return np.array(points)


def polak_ribiere(gradients):
    """The directions at these gradients, one after another."""
    directions = [-gradients[0]]
    for earlier, here in itertools.pairwise(gradients):
        beta = max(here @ (here - earlier) / (earlier @ earlier), 0)
        directions.append(-here + beta * directions[-1])
    return directions


def hager_zhang(gradients):
    directions = [-gradients[0]]
    for earlier, here in itertools.pairwise(gradients):
        d, y = directions[-1], here - earlier
        beta = (y - 2 * d * (y @ y) / (d @ y)) @ here / (d @ y)
        eta = -1 / (np.linalg.norm(d) * min(0.01, np.linalg.norm(earlier)))
        directions.append(-here + max(beta, eta) * d)
    return directions


def bfgs(points, gradients, memory):
    """The directions of BFGS with dense matrices, from the last pairs and a scaled identity."""
    directions = [-gradients[0]]
    for last in range(1, len(points)):
        pairs = [(points[i + 1] - points[i], gradients[i + 1] - gradients[i]) for i in range(last)][-memory:]
        s, y = pairs[-1]
        inverse = s @ y / (y @ y) * np.eye(len(s))
        for s, y in pairs:
            left = np.eye(len(s)) - np.outer(s, y) / (s @ y)
            inverse = left @ inverse @ left.T + np.outer(s, s) / (s @ y)
        directions.append(-inverse @ gradients[last])
    return directions


def differences(x):
    """Forward differences along every axis, 0 at the far edges."""
    return np.stack([np.diff(x, axis=a, append=np.take(x, [-1], a)) for a in range(x.ndim)])


def adjoint(p):
    total = np.zeros(p.shape[1:])
    for axis, q in enumerate(p):
        inner = np.delete(q, -1, axis)
        zero = np.zeros_like(np.take(q, [0], axis))
        total += np.concatenate([zero, inner], axis) - np.concatenate([inner, zero], axis)
    return total


def denoise(image, weight, *, isotropic=True, nonnegative=False, iterations=4000):
    """Rudin, Osher and Fatemi's model by the primal-dual method of Chambolle and Pock (2011, algorithm 1)."""
    x = ahead = image.copy()
    y = np.zeros((image.ndim, *image.shape))
    rate = 0.99 / np.sqrt(4 * image.ndim)
    for _ in range(iterations):
        y += rate * differences(ahead)
        size = np.sqrt((y**2).sum(0)) if isotropic else np.abs(y)
        y /= np.maximum(size / weight, 1)
        new = (x - rate * adjoint(y) + rate * image) / (1 + rate)
        new = np.maximum(new, 0) if nonnegative else new
        x, ahead = new, 2 * new - x
    return x


def fista(gradient, prox, x, *, step_size, steps):
    """The proximal points; restarted where the extrapolation points uphill."""
    points, ahead, earlier, t = [], x, x, 1.0
    for _ in range(steps):
        x = prox(ahead - step_size * gradient(ahead))
        if ((ahead - x) * (x - earlier)).sum() > 0:
            t = 1.0
        later = (1 + np.sqrt(1 + 4 * t * t)) / 2
        ahead, earlier, t = x + (t - 1) / later * (x - earlier), x, later
        points.append(x)
    return points
