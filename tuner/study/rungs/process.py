"""A Gaussian process over configuration and resource together, in numpy and scipy.

The kernel is a Matern 5/2 over the configuration times a Matern 5/2 over the logarithm of the resource, as FABOLAS
(Klein et al. 2017, arXiv:1605.07079) has a kernel over configuration and share of the data: a loss early in a trial
says something about its last one, the more the nearer, and how much is learnt from the trials that have both. Three
terms more: what a configuration adds at every resource alike, as freeze-thaw has an asymptote of each curve (Swersky et
al. 2014, arXiv:1406.3896); a trend that is quadratic in each parameter; and noise. Parameters of the kernel are fitted
by their posterior mode (L-BFGS over exact gradients), with priors that make long length scales likely in many
dimensions (Hvarfner et al. 2024, arXiv:2402.02229).
"""

from __future__ import annotations

import math

import numpy
from scipy.linalg import cho_solve, cholesky, lapack, solve_triangular
from scipy.optimize import minimize

Array = numpy.ndarray

_JITTER = 1e-8
_STEPS = 12
"""Steps of L-BFGS at most: with 100 readings one takes a millisecond, and later ones change no suggestion."""


def apart(points: Array, owners: Array) -> Array:
    """Squared distances of points in each parameter, [parameters, n, n]. points: [n, features]; owners: [features], the
    parameter of each feature."""
    found = numpy.zeros((owners[-1] + 1, len(points), len(points)))
    for feature, owner in enumerate(owners.tolist()):
        column = points[:, feature]
        difference = column[:, None] - column[None, :]
        found[owner] += difference * difference
    return found


def squared(left: Array, right: Array) -> Array:
    """Squared distances [n, m] of points [n, features] and [m, features]."""
    found = (left * left).sum(1)[:, None] + (right * right).sum(1)[None, :] - 2.0 * (left @ right.T)
    return numpy.maximum(found, 0.0)


def matern(distances: Array) -> tuple[Array, Array]:
    """The Matern 5/2 kernel of squared distances, and its derivative with respect to them; both in their shape."""
    root = numpy.sqrt(5.0 * distances)
    decay = numpy.exp(-root)
    return (1.0 + root + (5.0 / 3.0) * distances) * decay, (-5.0 / 6.0) * (1.0 + root) * decay


TREND = -1.5
"""The logarithm of the trend's variance that the fit starts from."""


def trend(points: Array) -> Array:
    """Terms [n, terms] of a trend, which is quadratic in each feature. points: [n, features]."""
    place = 2.0 * points - 1.0
    return numpy.concatenate([place, 1.5 * (place * place - 1.0 / 3.0)], 1) / math.sqrt(points.shape[1])


class Kernel:
    """The kernel's parameters, each a logarithm, in one vector."""

    def __init__(self, parameters: int) -> None:
        self.size = parameters
        centre = 0.5 * math.log(max(parameters, 1)) - 0.7
        # inverse squared length scales of the parameters and of the resource, then three variances
        self.mean = numpy.array([*[-2.0 * centre] * parameters, 0.0, -0.3, -1.5, TREND, -4.0])
        self.deviation = numpy.array([*[2.0] * parameters, 1.5, 1.0, 1.5, 1.5, 1.5])
        self.low = self.mean - 3.0 * self.deviation
        self.high = self.mean + 3.0 * self.deviation
        self.low[-1], self.high[-1] = math.log(1e-4), 0.0

    def scaled(self, theta: Array, points: Array, owners: Array) -> Array:
        """Points [n, features], each feature in units of its parameter's length scale."""
        return points * numpy.exp(0.5 * theta[owners])

    def matrix(self, theta: Array, distances: Array, time: Array, alike: Array) -> Array:
        """The kernel [n, m] without noise. distances: [n, m], squared, of scaled points; time: [n, m] or [n, 1],
        squared; alike: [n, m], products of trends."""
        weights = numpy.exp(theta[self.size :])
        return matern(distances)[0] * (weights[1] * matern(weights[0] * time)[0] + weights[2]) + weights[3] * alike

    def variance(self, theta: Array, terms: Array) -> Array:
        """Of the function at configurations, [n], without noise. terms: [n, terms] of their trends."""
        weights = numpy.exp(theta[self.size :])
        return weights[1] + weights[2] + weights[3] * (terms * terms).sum(1)

    def objective(self, theta: Array, distances: Array, time: Array, alike: Array, y: Array) -> tuple[float, Array]:
        """The negative logarithm of the posterior, up to a constant, and its gradient.

        distances: [parameters, n, n] and time: [n, n], both squared; y: [n].
        """
        weights = numpy.exp(theta)
        d, n = self.size, len(y)
        k, slope = matern(numpy.tensordot(weights[:d], distances, 1))
        by_time, time_slope = matern(weights[d] * time)
        varying = weights[d + 1] * by_time
        both = varying + weights[d + 2]
        total = k * both + weights[d + 3] * alike
        total.flat[:: n + 1] += weights[d + 4] + _JITTER
        factor, info = lapack.dpotrf(total, lower=1, clean=1, overwrite_a=0)
        if info != 0:
            return 1e10, numpy.zeros_like(theta)
        root, _ = lapack.dtrtri(factor, lower=1)
        inverse = root.T @ root
        alpha = inverse @ y
        off = (theta - self.mean) / self.deviation
        value = 0.5 * float(y @ alpha) + float(numpy.log(factor.diagonal()).sum()) + 0.5 * float(off @ off)
        pull = 0.5 * (inverse - numpy.outer(alpha, alpha))
        gradient = off / self.deviation
        by_distance = (pull * both * slope).ravel()
        gradient[:d] += weights[:d] * (distances.reshape(d, -1) @ by_distance)
        gradient[d] += weights[d] * weights[d + 1] * float((pull * k * time_slope * time).sum())
        gradient[d + 1] += float((pull * k * varying).sum())
        gradient[d + 2] += weights[d + 2] * float((pull * k).sum())
        gradient[d + 3] += weights[d + 3] * float((pull * alike).sum())
        gradient[d + 4] += weights[d + 4] * float(pull.diagonal().sum())
        return value, gradient


class Process:
    """A process with given kernel parameters, conditioned on readings."""

    def __init__(self, points: Array, owners: Array, resource: Array, y: Array, theta: Array, kernel: Kernel) -> None:
        """points: [n, features]; owners: [features], the parameter of each; resource: [n], a logarithm; y: [n],
        standardized; theta: see `Kernel`."""
        self._points, self._owners, self._resource, self._y = points, owners, resource, y
        self._theta, self._kernel = theta, kernel
        self._scaled = kernel.scaled(theta, points, owners)
        time = (resource[:, None] - resource[None, :]) ** 2
        self._terms = trend(points)
        total = kernel.matrix(theta, squared(self._scaled, self._scaled), time, self._terms @ self._terms.T)
        total.flat[:: len(y) + 1] += float(numpy.exp(theta[-1])) + _JITTER
        self._factor = cholesky(total, lower=True, overwrite_a=True, check_finite=False)
        self._alpha = cho_solve((self._factor, True), y, check_finite=False)

    def at_full_budget(self, points: Array) -> tuple[Array, Array]:
        """Mean and standard deviation [m] of the function at the full budget, without noise. points: [m, features]."""
        others = self._kernel.scaled(self._theta, points, self._owners)
        terms = trend(points)
        time = self._resource[:, None] ** 2
        k = self._kernel.matrix(self._theta, squared(self._scaled, others), time, self._terms @ terms.T)
        half = solve_triangular(self._factor, k, lower=True, check_finite=False)
        variance = self._kernel.variance(self._theta, terms) - numpy.einsum("ij,ij->j", half, half)
        return k.T @ self._alpha, numpy.sqrt(numpy.maximum(variance, 1e-12))

    def believing(self, points: Array) -> Process:
        """The process as it will be if these configurations end, at the full budget, where it now expects them to
        (Ginsbourger et al. 2010, the kriging believer). points: [m, features]."""
        if not len(points):
            return self
        mean, _ = self.at_full_budget(points)
        return Process(
            numpy.concatenate([self._points, points]),
            self._owners,
            numpy.concatenate([self._resource, numpy.zeros(len(points))]),
            numpy.concatenate([self._y, mean]),
            self._theta,
            self._kernel,
        )


def fit(points: Array, owners: Array, resource: Array, y: Array) -> tuple[Kernel, Array]:
    """The kernel for readings, and its parameters at the mode of their posterior. See `Process`."""
    kernel = Kernel(int(owners[-1]) + 1)
    time = (resource[:, None] - resource[None, :]) ** 2
    terms = trend(points)
    found = minimize(
        kernel.objective, kernel.mean, (apart(points, owners), time, terms @ terms.T, y), method="L-BFGS-B", jac=True,
        bounds=list(zip(kernel.low, kernel.high, strict=True)), options={"maxiter": _STEPS, "maxcor": 8},
    )  # fmt: skip
    return kernel, found.x if numpy.isfinite(found.fun) else kernel.mean
