"""An experiment: all settings of one search, merged and checked before anything heavy is imported."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from tuner.config.document import MAX_DEPTH, Document, KeyPath, parse_value, read_document
from tuner.config.flags import FLAGS, OWN_WORK
from tuner.config.layers import Layers, Origin
from tuner.config.moved import Change, with_moved, without_moved
from tuner.config.own_program import read_program
from tuner.config.paths import Several, absolute, is_pathlike, missing, resolve_paths, storage_folder
from tuner.config.schema import experiment_schema
from tuner.config.sections import Asha, NoScheduler, Resources, Run, Search, Sections
from tuner.config.space_source import SPACE_KEY, SpaceSource, read_space_in, space_settings
from tuner.config.translate import checked, combined, explained, unknown_keys
from tuner.config.words import MOST_SHOWN, dotted, path_keys, shortened
from tuner.contract import InputError, Program, load_program
from tuner.importing import Own, Permission
from tuner.redaction import named_secret

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*(\.[A-Za-z_][A-Za-z0-9_-]*)*")


@dataclass(frozen=True)
class Experiment:
    """The checked settings of one search."""

    program: str
    """The program as `run.program` names it."""
    settings: BaseModel
    """The program's own sections, an instance of its `Settings`."""
    search: Search
    """The section `search`."""
    scheduler: Asha | NoScheduler
    """The section `scheduler`."""
    resources: Resources
    """The section `resources`."""
    run: Run
    """The section `run`."""
    space: SpaceSource
    """The search space as written; `tuner.space.load_space` makes it usable."""
    source: str
    """The experiment file as messages name it, or "the command line"."""
    path: Path | None = None
    """The experiment file; None without one."""
    text: str = ""
    """The experiment file as written; empty without one."""
    notes: tuple[str, ...] = ()
    """Sentences for the user about choices that work but surprise."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """What --set and flags changed, by dotted name, as given."""
    files: Mapping[str, Path | Several] = field(default_factory=dict)
    """Files and folders that were named by a relative path, by the dotted name of the setting."""
    code: Mapping[str, Own] = field(default_factory=dict)
    """Code of the user's own that a search runs, by the dotted name of the setting that names it."""

    @property
    def program_class(self) -> type[Program]:
        """The class that `program` names."""
        return load_program(self.program)

    @property
    def storage_path(self) -> Path:
        """The absolute folder of the runs; relative to the working folder, where `tuner status` looks too."""
        return storage_folder(self.run.storage_path)


def load_experiment(
    path: Path | None = None,
    overrides: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
    elsewhere: bool = False,
    permission: Permission | None = None,
) -> Experiment:
    """Reads, merges and checks an experiment.

    Later wins: defaults, the space's `settings:`, the file, overrides, flags.

    path: the experiment file; None is the embedded demo, or the defaults alone if a setting of OWN_WORK is given.
    overrides: `a.b=c` as written after --set.
    flags: values of command line flags by dotted name (see FLAGS); None means not given.
    elsewhere: the search will run on other machines, so absolute paths are not checked here.
    permission: which code of the user's own may run; None: what the environment allows, and what lies beside the file.
    Raises InputError; wrong settings are all listed in one.
    """
    changes = [*_overrides(overrides), *_flags(flags or {})]
    if path is None and not OWN_WORK & {".".join(map(str, key)) for key, _, _ in changes}:
        path = demo_path()
    document = _read(path) if path is not None else None
    return _experiment(document, changes, permission or Permission.given(), elsewhere)


def load_resolved(
    resolved: Mapping[str, Any],
    source: str = "resolved.json",
    overrides: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
    permission: Permission | None = None,
) -> Experiment:
    """An experiment from what `dump_resolved` wrote: the same settings, even if the files they came from have changed.

    overrides, flags: as in `load_experiment`.
    permission: which code of the user's own may run; None: only what the environment allows. That these settings name
    a module does not permit it.
    """
    changes = [*_overrides(overrides), *_flags(flags or {})]
    return _experiment(Document(with_moved(resolved), source), changes, permission or Permission.given(beside=False))


def dump_resolved(experiment: Experiment) -> dict[str, Any]:
    """The experiment for JSON, with every default and the space's parameters written out: `load_resolved` reads it."""
    sections = Sections(
        search=experiment.search, scheduler=experiment.scheduler, resources=experiment.resources, run=experiment.run
    )
    resolved = {**experiment.settings.model_dump(mode="json"), **sections.model_dump(mode="json")}
    if experiment.space.data is not None:
        # Without the space's settings, which are merged already; with its name, so that people recognise it.
        inline = {key: value for key, value in experiment.space.data.items() if key != "settings"}
        resolved["search"]["space"] = {"name": experiment.space.name, **inline}
    return resolved


def demo_path() -> Path:
    """The experiment file of the embedded demo."""
    import tuner

    return Path(next(iter(tuner.__path__))) / "demo" / "search.yaml"


def _read(path: Path) -> Document:
    if not path.exists():
        raise missing(absolute(path), "experiment file", str(path))
    if path.is_dir():
        raise InputError("is a folder", where=str(path), expected="an experiment file (YAML)")
    return read_document(path, None)


def _overrides(overrides: Sequence[str]) -> list[Change]:
    changes: list[Change] = []
    for text in overrides:
        name, equals, value = text.partition("=")
        where = f"--set {shortened(text, 2 * MOST_SHOWN)}"
        if name.count(".") >= MAX_DEPTH:
            raise InputError("nested too deeply", where=where, expected=f"at most {MAX_DEPTH} names in one key")
        if not equals or not _KEY.fullmatch(name.strip()):
            raise InputError(
                "not an assignment", where=where, expected="section.key=value, as in train.learning_rate=1e-3"
            )
        key = tuple(name.strip().split("."))
        if before := next((earlier for known, _, earlier in changes if known == key), None):
            raise InputError("the same setting twice", where=where, expected=f"one value; the other one is {before}")
        changes.append((key, parse_value(value, where), where))
    return changes


def _flags(flags: Mapping[str, Any]) -> list[Change]:
    names = {key: flag for flag, key in FLAGS.items()}
    return [
        (tuple(name.split(".")), list(value) if isinstance(value, tuple) else value, names.get(name, name))
        for name, value in flags.items()
        if value is not None
    ]


def _layers(document: Document | None, changes: Sequence[Change], space: SpaceSource | None = None) -> Layers:
    """The space's settings, the file over them, and the changes over both."""
    layers = Layers()
    for key, value in space_settings(space) if space else ():
        where = space.where(("settings", ".".join(map(str, key)))) if space else ""
        base = space.path.parent if space and space.path else Path.cwd()
        layers.add_value(key, value, Origin(where, base))
    if document is not None:
        layers.add_document(document, document.path.parent if document.path else Path.cwd())
    # What is named as a whole (`--sampler tpe`) comes before what is set within it, whichever was written first
    for key, value, where in sorted(changes, key=lambda change: len(change[0])):
        layers.add_value(key, value, Origin(where, Path.cwd(), typed=True))
    return layers


def _two_spaces(document: Document | None, changes: Sequence[Change]) -> list[InputError]:
    """An error for a space that is named, by a change or in the file, beside changes within one: the one would replace
    the other with all of its parameters and settings."""
    within = [(key, where) for key, _, where in changes if len(key) > len(SPACE_KEY) and key[:2] == SPACE_KEY]
    if not within:
        return []
    whole = [(given, where) for key, given, where in changes if key == SPACE_KEY]
    layers = _layers(document, ())
    named, by = whole[0] if whole else (layers.get(SPACE_KEY), layers.where(SPACE_KEY))
    if named is None or isinstance(named, Mapping):
        return []
    (key, where), value = within[0], shortened(str(named))
    what = f"changes nothing beside {by}, which names another space"
    if not whole:
        what = f"would replace the whole space {value}, which {by} names"
    return [
        InputError(
            f"{dotted(key)} {what}",
            where=where,
            expected="one of the two",
            remedy=f"copy the file of the space {value} (`tuner spaces {value}` says where it is), change it, and name "
            "the copy: --space my_space.yaml",
        )
    ]


def _experiment(
    document: Document | None, changes: Sequence[Change], permission: Permission, elsewhere: bool = False
) -> Experiment:
    document, changes, errors = without_moved(document, changes)
    errors += _two_spaces(document, changes)
    # The file overrides the space's settings, and the file names the space: so the layers are made twice.
    first = _layers(document, changes)
    space: SpaceSource | None = None
    try:
        space = read_space_in(first, Search.model_fields["space"].default, permission)
        layers = _layers(document, changes, space)
    except InputError as error:
        errors.append(error)
        layers = first
    program_name = layers.get(("run", "program"), Run().program)
    program, own_program = read_program(program_name, layers.origin(("run", "program")), permission)
    schema = experiment_schema(program)
    files, missing_paths = resolve_paths(layers, path_keys(schema), elsewhere)
    errors += missing_paths + _secrets(layers)
    spec = layers.get(SPACE_KEY)
    if space is not None and space.path and is_pathlike(str(spec)) and not str(spec).startswith("/"):
        files[".".join(map(str, SPACE_KEY))] = space.path
    own = [*program.Settings.model_fields, *Sections.model_fields]
    errors += unknown_keys([(name,) for name in layers.data if name not in own], layers.data, schema, layers.where)
    settings, found = checked(program.Settings, _only(layers, program.Settings), schema, layers.where)
    errors += found
    sections, found = checked(Sections, _only(layers, Sections), schema, layers.where)
    errors += found
    if errors or sections is None or settings is None or space is None:
        raise combined(errors)
    if errors := _crossed(program, settings, sections, layers):
        raise combined(errors)
    return Experiment(
        program=program_name,
        settings=settings,
        search=sections.search,
        scheduler=sections.scheduler,
        resources=sections.resources,
        run=sections.run,
        space=space,
        source=layers.where(),
        path=document.path if document else None,
        text=document.text if document else "",
        notes=_notes(program, settings, sections),
        changes={".".join(map(str, key)): value for key, value, _ in changes},
        files=files,
        code={key: own for key, own in (("run.program", own_program), ("search.space", space.function)) if own},
    )


def _secrets(layers: Layers) -> list[InputError]:
    """An error for each setting that holds a secret: settings are sent to workers and shown in files and dashboards."""
    kinds = {key: kind for key, text in _texts(layers.data, ()) if (kind := named_secret(text)) is not None}
    return explained(
        kinds,
        layers.where,
        lambda key: InputError(
            f"{dotted(key)} holds what looks like a secret ({kinds[key]})",
            where=layers.where(key),
            expected="settings without secrets: they are written into the run folder and shown by Ray",
            remedy="give it in the environment (HF_TOKEN, WANDB_API_KEY, AWS_SECRET_ACCESS_KEY, ...)",
        ),
    )


def _texts(value: Any, key: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """Every text in `value`, the value at `key`, with its own key."""
    if isinstance(value, Mapping | list):
        for name, one in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _texts(one, (*key, name))
    elif isinstance(value, str):
        yield key, value


def _only(layers: Layers, model: type[BaseModel]) -> dict[str, Any]:
    """The model's sections. A required one that is missing is given as empty, so that the errors name its keys."""
    return {
        name: layers.data.get(name, {})
        for name, field in model.model_fields.items()
        if name in layers.data or field.is_required()
    }


def _notes(program: type[Program], settings: BaseModel, sections: Sections) -> tuple[str, ...]:
    notes: list[str] = []
    scheduler, kind = sections.scheduler, sections.search.sampler.kind
    if isinstance(scheduler, Asha):
        if kind in ("gp", "cmaes"):
            notes.append(
                f"sampler {kind} learns from completed trials alone, and the scheduler stops most trials early: "
                "use rungs or tpe, or scheduler.kind=none"
            )
        steps = program.budget(settings).steps
        if steps is not None and scheduler.grace_period == steps:
            notes.append(f"scheduler.grace_period is the whole budget ({steps} steps): no trial is stopped at a rung")
    return tuple(notes)


def _crossed(program: type[Program], settings: BaseModel, sections: Sections, layers: Layers) -> list[InputError]:
    """Errors between sections that are each valid."""
    if sections.search.budget.money is not None and sections.run.price_per_gpu_hour is None:
        return [
            InputError(
                "search.budget.money cannot be counted without a price",
                where=layers.where(("search", "budget", "money")),
                expected="run.price_per_gpu_hour beside it",
            )
        ]
    scheduler = sections.scheduler
    steps = program.budget(settings).steps
    if isinstance(scheduler, Asha) and scheduler.grace_period and steps is not None and scheduler.grace_period > steps:
        return [
            InputError(
                f"scheduler.grace_period: got {scheduler.grace_period}, but a whole trial is {steps} steps",
                where=layers.where(("scheduler", "grace_period")),
                expected=f"at most {steps}, or null for a period scaled to the budget",
            )
        ]
    return []
