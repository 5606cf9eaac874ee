"""The Gaussian process: gradients, known cases, and what more readings do to it."""

from __future__ import annotations

import numpy
from scipy.optimize import check_grad

from tuner.study.rungs.process import Kernel, Process, apart, fit, trend

OWNERS = numpy.array([0, 1, 1])


def drawn(count: int, seed: int = 0) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]:
    """Points [count, 3], resources [count], and values [count] that depend on the first parameter alone."""
    chance = numpy.random.default_rng(seed)
    points = chance.random((count, 3))
    resource = numpy.log(chance.choice([0.06, 0.2, 1.0], count))
    return points, resource, numpy.sin(5 * points[:, 0]) - 0.2 * resource


def test_the_gradient_is_that_of_the_objective() -> None:
    points, resource, y = drawn(20)
    kernel = Kernel(2)
    distances, time = apart(points, OWNERS), (resource[:, None] - resource[None, :]) ** 2
    alike = trend(points) @ trend(points).T
    for shift in (0.0, 0.7, -0.7):
        wrong = check_grad(
            lambda theta: kernel.objective(theta, distances, time, alike, y)[0],
            lambda theta: kernel.objective(theta, distances, time, alike, y)[1],
            kernel.mean + shift,
        )
        assert wrong < 1e-3


def test_a_parameter_that_matters_gets_the_shorter_length_scale() -> None:
    points, resource, y = drawn(60)
    _, theta = fit(points, OWNERS, resource, y)
    assert theta[0] > theta[1] + 1


def test_it_foretells_the_full_budget_from_losses_on_the_way() -> None:
    points, resource, y = drawn(60)
    kernel, theta = fit(points, OWNERS, resource, y)
    process = Process(points, OWNERS, resource, y, theta, kernel)
    new, _, _ = drawn(100, seed=1)
    mean, deviation = process.at_full_budget(new)
    error = mean - numpy.sin(5 * new[:, 0])
    assert numpy.sqrt(numpy.mean(error**2)) < 0.2
    assert numpy.mean(numpy.abs(error) < 3 * deviation) > 0.9


def test_what_is_believed_takes_doubt_away_and_leaves_the_mean() -> None:
    points, resource, y = drawn(15)
    kernel, theta = fit(points, OWNERS, resource, y)
    process = Process(points, OWNERS, resource, y, theta, kernel)
    new, _, _ = drawn(5, seed=1)
    before, doubt = process.at_full_budget(new)
    after, less = process.believing(new).at_full_budget(new)
    assert numpy.allclose(before, after, atol=1e-3)
    assert (less < doubt).all()
