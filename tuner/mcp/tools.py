"""The tools of the server: name, arguments, what it does. All but `server.py` work without the SDK."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tuner.config import experiment_schema
from tuner.config.sections import RunName
from tuner.contract import InputError, load_program
from tuner.mcp.starting import start

_EXPERIMENT = "experiment"
_NO_WRITE = "start it with `tuner mcp --allow-write` to let it run, stop and add"


class Arguments(BaseModel):
    """Base of the arguments: an unknown one is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Settings(Arguments):
    """What a search is made of."""

    file: str | None = None
    """A search file (YAML), relative to the server's folder. Without it and without `experiment`: the embedded
    example."""
    experiment: dict[str, Any] = Field(default={})
    """The settings of a search file; those given here replace those of `file`."""


class Search(Settings):
    """A search to start."""

    name: RunName | None = None
    """The run's name; by default the date and time."""


class Named(Arguments):
    """A run."""

    name: RunName
    """The run's name."""


class Status(Arguments):
    """A run, or all of them."""

    name: RunName | None = None
    """The run's name; without it, all runs are listed."""


class OneTrial(Named):
    """A trial of a run."""

    trial: int | None = None
    """Its number."""


class Addition(Named):
    """A trial to add."""

    params: dict[str, Any] = Field(default={})
    """Its values by parameter (`{"lora_r": 64}`)."""
    like: int | None = None
    """The trial that the other values are taken from; 0 is the recipe. What neither says, the sampler draws."""


@dataclass(frozen=True)
class Place:
    """What the server was started with."""

    storage_path: Path
    """The folder of the runs."""
    modules: tuple[str, ...] = ()
    """Python of the user's own that may be run."""


@dataclass(frozen=True)
class Tool:
    """One tool."""

    name: str
    arguments: type[Arguments]
    run: Callable[[Any, Place], Mapping[str, Any]]
    description: str
    writes: bool = False
    """Whether it changes anything: it starts, stops or adds."""
    destroys: bool = False
    """Whether it ends something."""

    def schema(self) -> dict[str, Any]:
        """The JSON Schema of its arguments; that of `experiment` is the schema of search files."""
        made = self.arguments.model_json_schema()
        if _EXPERIMENT in made["properties"]:
            whole = experiment_schema(load_program("sft"))
            told = {**made["properties"][_EXPERIMENT], "properties": whole["properties"], "additionalProperties": False}
            made["properties"][_EXPERIMENT] = told
            made["$defs"] = {**made.get("$defs", {}), **whole["$defs"]}
        return made

    def call(self, given: Mapping[str, Any], place: Place) -> Mapping[str, Any]:
        """Runs it. Raises InputError for what it was given."""
        try:
            arguments = self.arguments.model_validate(dict(given))
        except ValidationError as error:
            told = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
            raise InputError("; ".join(told), where=self.name, expected="the arguments of its schema") from None
        return self.run(arguments, place)


def _plan(given: Settings, place: Place) -> Mapping[str, Any]:
    from tuner.api import plan
    from tuner.driver.plan import look_at_rows

    found = plan(given.file, settings=flat(given.experiment), allow_modules=place.modules)
    look, refused = look_at_rows(found)
    return {**found.to_dict(), "data": look and asdict(look), "refused": refused or None}


def _search(given: Search, place: Place) -> Mapping[str, Any]:
    return start(given.file, flat(given.experiment), given.name, place.storage_path, place.modules)


def _status(given: Status, place: Place) -> Mapping[str, Any]:
    from tuner.api import open_run
    from tuner.report.runs import rows_of

    if given.name is not None:
        return open_run(given.name, place.storage_path).status()
    rows = rows_of(place.storage_path)
    return {"path": str(place.storage_path.resolve()), "runs": [row.to_dict() for row in rows]}


def _show(given: OneTrial, place: Place) -> Mapping[str, Any]:
    from tuner.api import open_run

    return open_run(given.name, place.storage_path).show(given.trial)


def _stop(given: OneTrial, place: Place) -> Mapping[str, Any]:
    from tuner.api import open_run

    return {"name": given.name, "message": open_run(given.name, place.storage_path).stop(given.trial)}


def _add(given: Addition, place: Place) -> Mapping[str, Any]:
    from tuner.api import open_run

    message = open_run(given.name, place.storage_path).add(given.params, like=given.like)
    return {"name": given.name, "message": message}


TOOLS = (
    Tool("plan", Settings, _plan, "What a search with these settings would do: trials, rungs, memory, the rows as the "
         "model sees them, and what is wrong. Starts nothing."),
    Tool("search", Search, _search, "Starts a search in the background and returns its name at once. `status` says how "
         "it stands.", writes=True),
    Tool("status", Status, _status, "How a search stands or ended: the best trial beside the recipe, every trial, "
         "notes. Without a name, all runs."),
    Tool("show", OneTrial, _show, "One trial in full: parameters, curve, ending, traceback, its adapter's folder. "
         "Without a number, the best one."),
    Tool("stop", OneTrial, _stop, "Ends a running trial, or without a number the whole search, whose best adapter is "
         "kept.", writes=True, destroys=True),
    Tool("add", Addition, _add, "Adds a trial with these values to a running search.", writes=True),
)  # fmt: skip


def offered(*, writes: bool) -> dict[str, Tool]:
    """The tools by name. writes: whether those are among them that change something."""
    return {tool.name: tool for tool in TOOLS if writes or not tool.writes}


def chosen(name: str, *, writes: bool) -> Tool:
    """The tool of this name. Raises InputError where there is none, or where it is not allowed."""
    tools = offered(writes=True)
    if name not in tools:
        raise InputError(f"there is no tool {name!r}", where="tuner mcp", expected=", ".join(offered(writes=writes)))
    if tools[name].writes and not writes:
        raise InputError(f"{name} changes something, and this server only reads", where="tuner mcp", remedy=_NO_WRITE)
    return tools[name]


def flat(experiment: Mapping[str, Any]) -> dict[str, Any]:
    """The settings by dotted name, `section.key`; a section that is no mapping stays as it is."""
    found: dict[str, Any] = {}
    for section, values in experiment.items():
        if isinstance(values, Mapping):
            found |= {f"{section}.{key}": value for key, value in values.items()}
        else:
            found[section] = values
    return found
