"""The kinds of parameter a space is made of: ranges of numbers, and choices. Frozen, picklable, free of optuna."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

if TYPE_CHECKING:
    import optuna

Scalar = str | int | float | bool | None


def _as_values(given: Any) -> Any:
    """Makes a tuple of each condition's values: `when: {lora_r: 8}` means `when: {lora_r: [8]}`."""
    if not isinstance(given, Mapping):
        return given
    return {name: tuple(value) if isinstance(value, list | tuple) else (value,) for name, value in given.items()}


class _Parameter(BaseModel):
    """What all kinds have.

    Each kind also has `suggest`, which draws a value from an Optuna trial; `contains`, whether a value can be drawn;
    `encode` and `decode`, a value as Optuna stores it and back; `values` and `count`, every value and how many there
    are; `extremes`, the ends of a range or all choices; and `upper_bound`, the largest number that can be drawn.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    when: Annotated[Mapping[str, tuple[Any, ...]], BeforeValidator(_as_values)] = Field(
        default_factory=dict, description="Searched only where each named parameter has one of these values."
    )

    def active(self, drawn: Mapping[str, Any]) -> bool:
        """Whether the values drawn so far meet the conditions under which this parameter is searched."""
        return all(
            name in drawn and any(_same(drawn[name], value) for value in values) for name, values in self.when.items()
        )


class Float(_Parameter):
    """A range of real numbers, `low` and `high` included."""

    type: Literal["float"] = "float"
    low: Annotated[float, Field(strict=True)]
    high: Annotated[float, Field(strict=True)]
    log: bool = False
    step: Annotated[float, Field(strict=True, gt=0)] | None = None

    @model_validator(mode="after")
    def _sound(self) -> Float:
        _check_range(self.low, self.high, self.log, self.step)
        return self

    def suggest(self, trial: optuna.Trial, name: str) -> float:
        return float(trial.suggest_float(name, self.low, self.high, log=self.log, step=self.step))

    def contains(self, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        # A tolerance of 1e-8 steps, because 0.1 + 0.2 is not 0.3.
        return self.step is None or abs(_off_grid(value - self.low, self.step)) < 1e-8

    def encode(self, value: float) -> float:
        return float(value)

    def decode(self, drawn: float) -> float:
        return drawn

    def values(self) -> Sequence[float] | None:
        """Every value, or None for a continuous range."""
        if self.step is None:
            return None
        return tuple(self.low + index * self.step for index in range(self.count() or 0))

    def count(self) -> int | None:
        """The number of values, or None for a continuous range."""
        # Rounded down after 1e-8 steps more, because (0.3 - 0) / 0.1 is 2.9999999999999996.
        return None if self.step is None else math.floor((self.high - self.low) / self.step + 1e-8) + 1

    def extremes(self) -> tuple[float, ...]:
        return (self.low, self.high)

    def upper_bound(self) -> float | None:
        return self.high

    def __str__(self) -> str:
        return _range_text(self.low, self.high, self.log, self.step)


class Int(_Parameter):
    """A range of whole numbers, `low` and `high` included."""

    type: Literal["int"] = "int"
    low: Annotated[int, Field(strict=True)]
    high: Annotated[int, Field(strict=True)]
    log: bool = False
    step: Annotated[int, Field(strict=True, gt=0)] | None = None

    @model_validator(mode="after")
    def _sound(self) -> Int:
        _check_range(self.low, self.high, self.log, self.step)
        return self

    def suggest(self, trial: optuna.Trial, name: str) -> int:
        return int(trial.suggest_int(name, self.low, self.high, log=self.log, step=self.step or 1))

    def contains(self, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int):
            return False
        return self.low <= value <= self.high and (value - self.low) % (self.step or 1) == 0

    def encode(self, value: float) -> int:
        return int(value)

    def decode(self, drawn: int) -> int:
        return drawn

    def values(self) -> Sequence[int] | None:
        return range(self.low, self.high + 1, self.step or 1)

    def count(self) -> int | None:
        return (self.high - self.low) // (self.step or 1) + 1

    def extremes(self) -> tuple[int, ...]:
        return (self.low, self.high)

    def upper_bound(self) -> float | None:
        return float(self.high)

    def __str__(self) -> str:
        return _range_text(self.low, self.high, self.log, self.step)


class Choice(_Parameter):
    """One of several values. A list (target modules) is one value; optuna sees it as `q_proj+v_proj`."""

    type: Literal["choice"] = "choice"
    options: Annotated[tuple[Any, ...], Field(alias="values", min_length=1)]

    @field_validator("options", mode="before")
    @classmethod
    def _a_list(cls, given: Any) -> Any:
        # Only a list becomes choices: the text "true" must not become its four letters.
        return tuple(given) if isinstance(given, list | tuple) else given

    @field_validator("options")
    @classmethod
    def _distinct(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        for value in values:
            if isinstance(value, list):
                if not value or not all(isinstance(part, str) for part in value):
                    raise ValueError(f"{value} is not a list of names")
            elif not isinstance(value, str | int | float | bool | None):
                raise ValueError(f"{value!r} is neither a plain value nor a list of names")
        labels = [label(value) for value in values]
        for index, one in enumerate(labels):
            # By ==, as optuna compares: 1, 1.0 and true would be one and the same choice to it.
            if one in labels[:index]:
                raise ValueError(f"{shown(one)} is in the list twice")
        return values

    def suggest(self, trial: optuna.Trial, name: str) -> Any:
        return self.decode(trial.suggest_categorical(name, [label(value) for value in self.options]))

    def contains(self, value: Any) -> bool:
        return any(_same(value, option) for option in self.options)

    def encode(self, value: Any) -> Scalar:
        return label(value)

    def decode(self, drawn: Scalar) -> Any:
        """The value behind a label; a list is copied, so that no trial can change another's."""
        value = next(option for option in self.options if label(option) == drawn)
        return list(value) if isinstance(value, list) else value

    def values(self) -> Sequence[Any] | None:
        return self.options

    def count(self) -> int | None:
        return len(self.options)

    def extremes(self) -> tuple[Any, ...]:
        return self.options

    def upper_bound(self) -> float | None:
        numbers = [value for value in self.options if isinstance(value, int | float) and not isinstance(value, bool)]
        return float(max(numbers)) if numbers else None

    def __str__(self) -> str:
        return " | ".join(shown(value) for value in self.options)


AnyParameter = Float | Int | Choice
KINDS: Mapping[str, type[Float] | type[Int] | type[Choice]] = {"float": Float, "int": Int, "choice": Choice}


def shown(value: Any) -> str:
    """A value as tables and messages show it: 3e-4, true, q_proj+v_proj."""
    if isinstance(value, list | tuple):
        return "+".join(map(str, value))
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return _number(value) if isinstance(value, int | float) else str(value)


def label(value: Any) -> Scalar:
    """A choice's value as optuna stores it: itself, or a list's names joined by +."""
    return "+".join(value) if isinstance(value, list | tuple) else value


def _same(one: Any, other: Any) -> bool:
    """Equal and of one kind: the recipe's 1 is not the choice `true`."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _check_range(low: float, high: float, log: bool, step: float | None) -> None:
    if low > high:
        raise ValueError(f"low {_number(low)} is above high {_number(high)}")
    if low == high:
        raise ValueError(f"low and high are both {_number(low)}; to fix a value, write it under `settings:`")
    if log and low <= 0:
        raise ValueError(f"log needs low > 0, got {_number(low)}")
    if log and step is not None:
        raise ValueError("give log or step, not both")
    if step is not None and step > high - low:
        raise ValueError(f"step {_number(step)} is larger than the range {_number(low)} to {_number(high)}")


def _range_text(low: float, high: float, log: bool, step: float | None) -> str:
    text = f"{_number(low)} to {_number(high)}"
    return text + (", log" if log else "") + (f", step {_number(step)}" if step is not None else "")


def _number(value: float) -> str:
    if isinstance(value, int) or (abs(value) < 1e6 and value == int(value)):
        return str(int(value))
    # 5e-05 is how C prints it; people and papers write 5e-5.
    text = f"{value:.6g}" if abs(value) >= 1e-2 else f"{value:.6e}"
    mantissa, _, exponent = text.partition("e")
    if not exponent:
        return text
    if "." in mantissa:
        mantissa = mantissa.rstrip("0").rstrip(".")
    return f"{mantissa}e{int(exponent)}"


def _off_grid(distance: float, step: float) -> float:
    return distance / step - round(distance / step)


def parents_first(parameters: Mapping[str, AnyParameter]) -> tuple[list[str], Sequence[str]]:
    """The names in an order with every parent before its children, and the names that are left: those in a cycle."""
    order: list[str] = []
    left = list(parameters)
    while ready := [name for name in left if all(parent not in left for parent in parameters[name].when)]:
        # One at a time, so that parameters otherwise keep the order they are written in.
        order.append(ready[0])
        left.remove(ready[0])
    return order, left
