"""tuner from Python: `search`, `plan` and `open_run`, by the functions that the commands call. Importing it costs
nothing: all that is heavy is imported in the calls."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tuner.config import Experiment
    from tuner.driver.plan import Plan
    from tuner.driver.session import Outcome
    from tuner.importing import Permission
    from tuner.results.folder import RunFolder
    from tuner.results.ledger import Event
    from tuner.results.records import SearchRecord

    Listener = Callable[[Event], None]


class Run:
    """A search that runs or has run, by its folder. Everything is read anew from the ledger at each call."""

    def __init__(self, folder: RunFolder, outcome: Outcome | None = None) -> None:
        self._folder = folder
        self.outcome = outcome
        """How the search ended that this process ran; None for a run that was opened."""

    @property
    def name(self) -> str:
        return self._folder.name

    @property
    def path(self) -> Path:
        """The run folder."""
        return self._folder.path

    @property
    def best(self) -> Path:
        """The folder of the best adapter; it is there once the search has ended."""
        return self._folder.best

    def record(self) -> SearchRecord:
        """The search as its ledger has it: trials, curves, endings. Raises InputError if it cannot be read."""
        record = self._folder.record()
        if not self._is_active(record):  # no driver runs them any more
            for trial in record.trials.values():
                trial.interrupted = not trial.has_ended and not trial.parked
        return record

    def status(self) -> dict[str, Any]:
        """What `tuner status NAME --json` prints, but `damaged`."""
        from tuner.report.machine import status_json

        record = self.record()
        return {**status_json(record, self.path), "active": self._is_active(record)}

    def show(self, trial: int | None = None) -> dict[str, Any]:
        """All that is known of a trial. trial: its number; None: the best one. Raises InputError if there is none."""
        from tuner.report.machine import trial_json
        from tuner.report.standing import asked_for
        from tuner.results.adapters import adapter_of

        record = self.record()
        found = asked_for(record, trial, self.name)
        place = adapter_of(self._folder, record, found.number)
        return {**trial_json(found), "name": self.name, "adapter": str(place) if place else None}

    def stop(self, trial: int | None = None) -> str:
        """Ends a trial, or the whole search; returns the driver's answer. Raises InputError if no driver runs."""
        return self._ask("stop", trial=trial)

    def add(self, params: Mapping[str, Any] | None = None, *, like: int | None = None) -> str:
        """Adds a trial to the running search. params: its values by name. like: the trial that has the others; what
        neither says, the sampler draws. Returns the driver's answer. Raises InputError."""
        return self._ask("add", params=dict(params or {}), like=like)

    def export(self, to: str | Path, *, merge: bool = False) -> Path:
        """Copies the best adapter into the new folder `to`, or with merge writes base and adapter as one model. Raises
        InputError."""
        from tuner.results.export import export_best

        return export_best(self._folder, Path(to), merge)[0]

    def _is_active(self, record: SearchRecord) -> bool:
        from tuner.results.lock import is_held
        from tuner.results.storage import is_written

        return not record.finished and (is_held(self.path) or is_written(self.path))

    def _ask(self, action: str, **values: Any) -> str:
        from tuner.results.requests import ask

        return ask(self._folder, action, values)

    def __repr__(self) -> str:
        """What `tuner status NAME` prints."""
        from tuner.report.lines import plain
        from tuner.report.showing import labels_of_run, place_of
        from tuner.report.summary import summary

        return plain(summary(self.record(), place_of(self.path), 100, labels=labels_of_run(self._folder))).rstrip("\n")


def search(
    file: str | Path | None = None,
    *,
    model: str | None = None,
    data: str | None = None,
    space: str | Mapping[str, Any] | None = None,
    num_trials: int | None = None,
    name: str | None = None,
    storage_path: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    resume: bool = False,
    progress: bool = True,
    listeners: Sequence[Listener] = (),
    allow_modules: Sequence[str] = (),
    accept_changes: bool = False,
) -> Run:
    """Runs a search to its end, as `tuner search` does, and returns its run.

    file: a search file; None: `model` and `data` say enough, or the embedded example runs. settings: any others, by
    dotted name (`{"train.learning_rate": 1e-3}`). resume: goes on with the run of this name if there is one. progress:
    shows how far it is, in a notebook too. listeners: called with every event. allow_modules: Python of the user's own
    that may be run. accept_changes: goes on where base or rows are not what they were.

    To be called in the main thread, because it handles signals: a Ctrl-C, or a notebook's stop button, ends the search
    with its best adapter kept. Raises InputError for what the user wrote.
    """
    from contextlib import nullcontext

    from tuner.addresses import go_past_proxies
    from tuner.driver.session import resume_search, run_search
    from tuner.results.folder import RunFolder, was_begun

    permission = _permission(allow_modules, beside=True)
    experiment = _experiment(file, permission, settings, {
        "--model": model, "--data": data, "--space": space, "--num-trials": num_trials, "--name": name,
        "--storage-path": storage_path and str(storage_path),
    })  # fmt: skip
    go_past_proxies()
    storage, known = experiment.storage_path, experiment.run.name
    goes_on = resume and known is not None and was_begun(storage, known)
    with _view(experiment, storage / known if goes_on and known else None) if progress else nullcontext() as view:
        heard = [*([view] if view is not None else []), *listeners]
        if goes_on and known is not None:
            outcome = resume_search(
                storage, known, heard, num_trials, address=experiment.run.address, permission=permission,
                accept_changes=accept_changes,
            )  # fmt: skip
        else:
            outcome = run_search(experiment, heard, accept_changes=accept_changes)
    return Run(RunFolder(outcome.path), outcome)


def plan(
    file: str | Path | None = None,
    *,
    model: str | None = None,
    data: str | None = None,
    space: str | Mapping[str, Any] | None = None,
    num_trials: int | None = None,
    settings: Mapping[str, Any] | None = None,
    allow_modules: Sequence[str] = (),
) -> Plan:
    """Works out what `search` would do with the same arguments, as `tuner plan` does, and starts nothing. Its
    `to_dict()` is what `tuner plan --json` prints, without `data`, `refused` and `outlook`, which need the rows or
    earlier searches. Raises InputError."""
    from tuner.driver.plan import make_plan

    given = {"--model": model, "--data": data, "--space": space, "--num-trials": num_trials}
    return make_plan(_experiment(file, _permission(allow_modules, beside=False), settings, given))


def open_run(name: str | Path, storage_path: str | Path = "runs") -> Run:
    """Opens a run, also one whose search still runs. name: its name, or the path of its folder. Raises InputError with
    the nearest names if there is none."""
    from tuner.config.paths import storage_folder
    from tuner.results.folder import open_run as find

    return Run(find(storage_folder(storage_path), str(name)))


def _experiment(
    file: str | Path | None, permission: Permission, settings: Mapping[str, Any] | None, given: Mapping[str, Any]
) -> Experiment:
    """Loads the experiment. given: the arguments by their flags, which come after `settings`."""
    from tuner.config import FLAGS, load_experiment

    more = dict(settings or {})
    nulls = [f"{key}=null" for key, value in more.items() if value is None]  # among flags None means "not given"
    flags = {**more, **{FLAGS[flag]: value for flag, value in given.items() if value is not None}}
    return load_experiment(Path(file) if file is not None else None, nulls, flags, permission=permission)


def _permission(modules: Sequence[str], *, beside: bool) -> Permission:
    from tuner.importing import Permission

    return Permission.given(modules, beside=beside)


def _view(experiment: Experiment, earlier: Path | None) -> Any:
    """The view of a running search: in a notebook, on a terminal, or plain lines. earlier: the folder of the run that
    is gone on with."""
    from tuner.report.notebook import NotebookView, in_notebook
    from tuner.report.showing import labels_of_program, view
    from tuner.results.folder import RunFolder

    labels, record = labels_of_program(experiment.run.program), RunFolder(earlier).record() if earlier else None
    if in_notebook(sys.modules):
        return NotebookView(labels, record=record)
    return view(labels, record=record)
