"""The search space: what a trial may vary, from YAML or Python, as an optuna define-by-run callable.

parameters  Float, Int, Choice, with conditions
space       a Space: draw, the recipe as a point, the grid
function    a FunctionSpace: a user's own function, called in a process of its own
load        reads and checks a space as the user wrote it
first       the points that a space names to be tried first
own         a point that a person suggests to a running search
settings    a point laid over the program's settings

Importing this imports neither optuna nor torch. A point is drawn from an optuna trial that the caller passes in.
"""

from tuner.space.function import FunctionSpace
from tuner.space.load import experiment_space, load_space
from tuner.space.parameters import Choice, Float, Int
from tuner.space.settings import recipe_values, with_params
from tuner.space.space import Recipe, Space

__all__ = [
    "Choice",
    "Float",
    "FunctionSpace",
    "Int",
    "Recipe",
    "Space",
    "experiment_space",
    "load_space",
    "recipe_values",
    "with_params",
]
