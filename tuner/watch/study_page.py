"""The study as the Optuna dashboard shows it: the journal, read-only, with what the ledger knows beside it.

The journal has what Optuna needs to sample. The attributes of the search and of its trials, the name of the objective,
and the files of the run are added where the page is served, so that a page of a run folder of any version has them.
"""

from __future__ import annotations

import copy
import json
import mimetypes
import threading
import time
import uuid
from collections.abc import Container, Iterator
from pathlib import Path
from typing import IO, Any

from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState

from tuner.contract import InputError
from tuner.results import lock
from tuner.results.folder import RunFolder
from tuner.results.journal_check import journal_places
from tuner.results.records import SearchRecord
from tuner.results.study_attributes import STATE, search_attributes, standing, state_of, trial_attributes
from tuner.results.untrusted_read import inside, is_plain_file, plain_files, read_object

READ_ONLY = "this view of the study is read-only: the search's driver is the one that writes it"
"""What a request that would change the study is answered with."""
_EVERY_S = 2.0
"""Seconds for which what was read of the ledger is shown, at least. It is also at least four times as long as reading
takes."""


class ReadOnly(JournalFileBackend):
    """A journal that is read and never written."""

    def append_logs(self, logs: Any) -> None:
        raise InputError(READ_ONLY)


class Files:
    """An Optuna artifact store that has the files of a run folder, read-only.

    A file has a number of its own that nobody can guess: the dashboard lets every page in the same browser read an
    artifact whose number it knows.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._numbers: dict[Path, str] = {}
        self._paths: dict[str, Path] = {}

    def of_search(self) -> dict[str, str]:
        """The system attributes of the study that name its files."""
        folder = self._folder
        return self._listed([folder.experiment, folder.resolved, *plain_files(folder.best)])

    def of_trial(self, number: int, adapter: str) -> dict[str, str]:
        """The same of a trial: its log and its adapter. adapter: its place in the run folder; "" for none."""
        place = inside(self._folder.path, adapter) if adapter else None
        return self._listed([self._folder.log(number), *(plain_files(place) if place and place.is_dir() else ())])

    def _listed(self, paths: list[Path]) -> dict[str, str]:
        told = {}
        for path in paths:
            if is_plain_file(path):
                number = self._numbers.setdefault(path, str(uuid.uuid4()))
                self._paths[number] = path
                kind = "text/plain" if path.suffix in (".log", ".md", ".yaml") else mimetypes.guess_type(path.name)[0]
                about = {"artifact_id": number, "filename": path.name, "encoding": None}
                about["mimetype"] = kind if kind in ("text/plain", "application/json") else "application/octet-stream"
                told[f"artifacts:{number}"] = json.dumps(about)
        return told

    def open_reader(self, artifact_id: str) -> IO[bytes]:
        """The file. Raises ArtifactNotFound if there is none."""
        path = self._paths.get(artifact_id)
        if path is None or not is_plain_file(path):
            raise ArtifactNotFound(artifact_id)
        return path.open("rb")

    def write(self, artifact_id: str, content_body: IO[bytes]) -> None:
        raise InputError(READ_ONLY)

    def remove(self, artifact_id: str) -> None:
        raise InputError(READ_ONLY)


class Page(JournalStorage):
    """The storage behind the page of a run's study."""

    def __init__(self, folder: RunFolder, files: Files) -> None:
        super().__init__(ReadOnly(str(folder.study)))
        self._folder, self._files = folder, files
        self._reading = threading.Lock()
        self._read: tuple[Any, float, SearchRecord | None, dict[int, int]] = (None, 0.0, None, {})

    def get_all_studies(self) -> list[FrozenStudy]:
        studies = super().get_all_studies()
        record, _ = self._known()
        for study in studies:
            if record is not None and study.study_name == self._folder.name:
                study.user_attrs = self._of_search(record, study.user_attrs)
                names = {"study:metric_names": [record.objective.name]}
                study.system_attrs = {**names, **study.system_attrs, **self._files.of_search()}
        return studies

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return next(s.user_attrs for s in self.get_all_studies() if s._study_id == study_id)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return next(s.system_attrs for s in self.get_all_studies() if s._study_id == study_id)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        trials = super().get_all_trials(study_id, deepcopy, states)
        return list(self._shown(trials))

    def get_trial(self, trial_id: int) -> FrozenTrial:
        return next(self._shown([super().get_trial(trial_id)]))

    def _shown(self, trials: list[FrozenTrial]) -> Iterator[FrozenTrial]:
        """The trials with what the ledger knows of them; somebody else's as they are."""
        record, numbers = self._known()
        for trial in trials:
            known = record.trials.get(numbers.get(trial._trial_id, -1)) if record is not None else None
            if record is None or known is None:
                yield trial
                continue
            shown = copy.copy(trial)
            told = trial_attributes(self._folder, record, known)
            place = "" if known.adapter is None else str(told["adapter"])
            shown._user_attrs = {**trial._user_attrs, **told}
            shown._system_attrs = {**trial._system_attrs, **self._files.of_trial(known.number, place)}
            yield shown

    def _of_search(self, record: SearchRecord, written: dict[str, Any]) -> dict[str, Any]:
        """The study's attributes: those that an earlier version did not write, and the state as it is now. written:
        those in the journal."""
        try:
            settings = read_object(self._folder.resolved)
        except InputError:
            settings = {}
        told = search_attributes(settings, record, record.recipe.params if record.recipe else None)
        state = state_of(record, standing(record, driven=lock.is_held(self._folder.path)))
        return {**told, **written, STATE: state}

    def _known(self) -> tuple[SearchRecord | None, dict[int, int]]:
        """The record, None where it cannot be read; and the number of each trial by its place in the journal.

        Read after the journal, so that every ending in the journal is in it, where it is read at all.
        """
        with self._reading:
            sizes, due, record, numbers = self._read
            now, begun = [_mark(self._folder.study), _mark(self._folder.ledger)], time.monotonic()
            if now == sizes or begun < due:
                return record, numbers
            numbers = {place: number for number, place in enumerate(journal_places(self._folder.study)[0].own)}
            try:
                record = self._folder.record()
            except InputError:
                record = None
            ended = time.monotonic()
            self._read = now, ended + max(_EVERY_S, 4 * (ended - begun)), record, numbers
            return record, numbers


def _mark(path: Path) -> tuple[int, int]:
    """What changes when a file does: its inode and its size in bytes."""
    try:
        about = path.stat()
    except OSError:
        return 0, 0
    return about.st_ino, about.st_size
