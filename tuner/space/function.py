"""A user's own define-by-run function `(trial) -> {name: value}` as a space. It is called in a process of its own."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuner.config.words import got, listed
from tuner.contract import InputError, Parameter
from tuner.guest import Failed, Guest
from tuner.importing import Own
from tuner.space.parameters import AnyParameter
from tuner.space.space import Recipe, unknown_parameter

_EXPECTED = "def {name}(trial): ..., which draws with trial.suggest_... and returns {{parameter: value}}"
_REMEDY = "mend it, and say the command again; a search that had begun goes on with --resume"


class Function:
    """A user's function. Its process is started for the first call, and again for the call after one that failed."""

    def __init__(self, own: Own, where: str) -> None:
        self.own, self._where = own, where
        self._guest: Guest | None = None
        self._calls = 0

    def load(self) -> None:
        """Starts the process, which imports the module. Raises InputError where that fails, or where it has no such
        function."""
        if not self.own.allowed:
            raise self.own.not_run("search.space", self._where)
        if self._guest is None:
            self._guest = self._for_user(lambda: Guest(self.own, "function"))

    def draw(self, trial: Any) -> Any:
        """What the function returns for `trial`, which has Optuna's `suggest_float`, `suggest_int` and
        `suggest_categorical`. Raises InputError for whatever goes wrong in it."""
        self.load()
        answers = _TrialAnswers(trial)
        guest, self._calls = self._guest, self._calls + 1
        assert guest is not None
        drawn = self._for_user(lambda: guest.call({"number": trial.number}, answers.answer))
        if isinstance(drawn, Mapping) and drawn and not answers.asked:
            raise self._error("draws nothing: every trial would be the same point")
        return drawn

    def _for_user(self, call: Any) -> Any:
        """Calls `call`. Where the process failed, ends it and raises InputError in the user's terms."""
        try:
            return call()
        except Failed as failed:
            self.close()
            expected = _EXPECTED.format(name=self.own.name)
            raise failed.trouble.error(
                f"search.space: {self.own}", where=self._where, expected=expected, remedy=_REMEDY
            ) from None

    def _error(self, what: str) -> InputError:
        expected = _EXPECTED.format(name=self.own.name)
        return InputError(f"search.space: {self.own} {what}", where=self._where, expected=expected, remedy=_REMEDY)

    def close(self) -> None:
        """Ends the process."""
        if self._guest is not None:
            self._guest.close()
        self._guest = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_guest": None}


class _TrialAnswers:
    """Answers the function's `suggest_...` calls, which its process sends here, from the study's own trial."""

    def __init__(self, trial: Any) -> None:
        self._trial = trial
        self.asked: dict[str, Any] = {}
        """The range that each name was drawn from."""

    def answer(self, told: Mapping[str, Any]) -> dict[str, Any]:
        method, name, arguments, more = (told[key] for key in ("method", "name", "arguments", "more"))
        try:
            if method == "set_user_attr":
                return {"value": self._trial.set_user_attr(name, *arguments)}
            if self.asked.setdefault(name, (method, arguments, more)) != (method, arguments, more):
                return {"raised": f"{name!r} is drawn twice, from two ranges"}
            value = getattr(self._trial, method)(name, *arguments, **more)
            return {"value": arguments[0].index(value) if method == "suggest_categorical" else value}
        except Exception as error:  # Optuna refuses the range
            return {"raised": f"{error}"}


@dataclass(frozen=True)
class FunctionSpace:
    """The space that a user's function draws from. It has the fields of a `Space`, mostly empty: its parameters are not
    known before the function is called."""

    name: str
    function: Function
    """Pickles without its process, which is started again by name."""
    known: Mapping[str, Parameter]
    """What the program lets a search vary, by short name."""
    refused: Mapping[str, str]
    """What it does not, each with the reason shown to the user."""
    description: str = ""
    source: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    path: Path | None = None
    parameters: Mapping[str, AnyParameter] = field(default_factory=dict)
    is_finite: bool = False
    size: int | None = None

    def suggest(self, trial: Any, only: Collection[str] | None = None) -> dict[str, Any]:
        """Calls the function and checks what it returns. With an empty `only` nothing is drawn, and the point is
        empty."""
        if only is not None and not only:
            return {}
        return self._checked(self.function.draw(trial))

    @property
    def target(self) -> str:
        """The function's name, as package.module:function."""
        return self.function.own.target

    def upper_bound(self, name: str) -> float | None:
        """The largest number that the function draws `name` from, as far as one call without a trial can tell. None
        where it does not draw that, or may not be called."""
        if not self.function.own.allowed:
            return None
        told = RecipeTrial({})
        if name not in self.suggest(told):
            return None
        return told.highs.get(name, self.known[name].high)

    def recipe(self, values: Mapping[str, Any]) -> Recipe:
        """The recipe's point, if the function would accept every one of its values under their own names."""
        if not self.function.own.allowed:
            module = self.function.own.module
            return Recipe({}, (f"what {self.name} draws is not known: --allow-module {module} lets it be called",))
        told = RecipeTrial(values)
        drawn = self.suggest(told)
        strange = {name: value for name, value in drawn.items() if values.get(name) != value}
        if told.outside or strange:
            names = listed(sorted({*told.outside, *strange}))
            return Recipe({}, (f"the recipe is not a point of {self.name} ({names}): the sampler is not told of it",))
        return Recipe(drawn)

    def encode(self, params: Mapping[str, Any]) -> dict[str, Any]:
        return dict(params)

    def decode(self, params: Mapping[str, Any]) -> dict[str, Any]:
        return dict(params)

    def grid(self) -> list[dict[str, Any]]:
        raise InputError(
            f"search.sampler: grid cannot search {self.name}: a function's points are not known beforehand",
            where=self.source,
            expected="a space in YAML of choices and ints",
        )

    def describe(self) -> list[dict[str, str]]:
        return [{"name": self.target, "type": "function", "range": "", "when": ""}]

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "function": self.target}

    def _checked(self, drawn: Any) -> dict[str, Any]:
        where = f"search.space {self.target}"
        if not isinstance(drawn, Mapping) or not drawn:
            raise InputError(f"returned {got(drawn)}", where=where, expected="a dict of parameter names and values")
        by_path = {parameter.path: name for name, parameter in self.known.items()}
        point: dict[str, Any] = {}
        for key, value in drawn.items():
            name = by_path.get(str(key), str(key))
            if name not in self.known:
                raise unknown_parameter(name, self.known, self.refused, where)
            point[name] = value
        return point


class RecipeTrial:
    """Stands in for an Optuna trial: answers a define-by-run function with given values, such as the recipe's, and
    notes those that the function would not have drawn."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values
        self.outside: list[str] = []
        """Names that have no given value, or one outside the range that the function asked for."""
        self.highs: dict[str, float] = {}
        """The upper end of each range of numbers that the function asked for."""
        self.params: dict[str, Any] = {}
        self.number = 0

    def suggest_float(self, name: str, low: float, high: float, **_: Any) -> Any:
        self.highs[name] = high
        return self._answer(name, low, lambda value: _is_number(value) and low <= value <= high)

    def suggest_int(self, name: str, low: int, high: int, **_: Any) -> Any:
        self.highs[name] = high
        return self._answer(name, low, lambda value: _is_number(value) and value == int(value) and low <= value <= high)

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        return self._answer(name, next(iter(choices)), lambda value: value in choices)

    def set_user_attr(self, key: str, value: Any) -> None:
        """Does nothing: there is no study to keep it."""

    def _answer(self, name: str, otherwise: Any, accepts: Any) -> Any:
        if name in self.values and accepts(self.values[name]):
            self.params[name] = self.values[name]
            return self.values[name]
        self.outside.append(name)
        return otherwise


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
