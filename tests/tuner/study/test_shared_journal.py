"""A study that other programs read and write while its search runs: both keep what they wrote."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.artifacts import FileSystemArtifactStore, upload_artifact
from optuna.distributions import FloatDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import TrialState, create_trial
from optuna_dashboard import get_note, save_note

from tests.chaos.faults import Count
from tests.tuner.study.test_journal import ATTRIBUTES, make
from tuner.config import Tpe
from tuner.contract import Reason, Verdict
from tuner.results.journal_check import journal_states, lost_end
from tuner.results.records import Point, TrialRecord
from tuner.study.journal import FileLock
from tuner.study.study import Study

optuna.logging.set_verbosity(optuna.logging.ERROR)


def opened(path: Path) -> optuna.Study:
    """The study as another program opens it."""
    return optuna.load_study(study_name="first", storage=JournalStorage(JournalFileBackend(str(path))))


def trial_of(study: optuna.Study, number: int) -> optuna.Trial:
    return optuna.Trial(study, study._storage.get_trial_id_from_study_id_trial_number(study._study_id, number))


def objective(trial: optuna.Trial) -> float:
    return trial.suggest_float("x", 0, 1)


def one_more(study: optuna.Study) -> None:
    study.add_trial(create_trial(value=9.0, params={"x": 0.5}, distributions={"x": FloatDistribution(0, 1)}))


def asks_and_tells(study: optuna.Study) -> None:
    trial = study.ask({"x": FloatDistribution(0, 1)})
    study.tell(trial, 9.0)


def copies(study: optuna.Study) -> None:
    optuna.copy_study(
        from_study_name="first", from_storage=study._storage, to_storage=study._storage, to_study_name="copy"
    )


def attaches(study: optuna.Study) -> None:
    folder = Path(os.environ["TMPDIR"])
    (folder / "x.txt").write_text("x")
    upload_artifact(
        study_or_trial=study, file_path=str(folder / "x.txt"), artifact_store=FileSystemArtifactStore(folder)
    )


CALLS: dict[str, Callable[[optuna.Study], object]] = {
    "get_trials": lambda study: study.get_trials(),
    "best_trial": lambda study: study.best_trial,
    "trials_dataframe": lambda study: study.trials_dataframe(),
    "study.set_user_attr": lambda study: study.set_user_attr("mine", "kept"),
    "study.set_system_attr": lambda study: study._storage.set_study_system_attr(study._study_id, "mine", "kept"),
    "trial.set_user_attr": lambda study: trial_of(study, 2).set_user_attr("mine", "kept"),
    "trial.set_system_attr": lambda study: trial_of(study, 2).storage.set_trial_system_attr(2, "mine", "kept"),
    "save_note of the study": lambda study: save_note(study, "# of the study"),
    "save_note of a trial": lambda study: save_note(trial_of(study, 2), "# of trial 2"),
    "upload_artifact": attaches,
    "enqueue_trial": lambda study: study.enqueue_trial({"learning_rate": 0.5}),
    "ask and tell": asks_and_tells,
    "ask alone": lambda study: study.ask({"x": FloatDistribution(0, 1)}),
    "tell of a running trial": lambda study: study.tell(2, 5.0),
    "optimize": lambda study: study.optimize(objective, n_trials=3),
    "add_trial": one_more,
    "copy_study": copies,
    "another study": lambda study: optuna.create_study(storage=study._storage, study_name="x").optimize(objective, 2),
    "delete_study": lambda study: optuna.delete_study(study_name="first", storage=study._storage),
}


THEIRS = {"ask and tell": 1, "ask alone": 1, "optimize": 3, "add_trial": 1}
"""Trials that a call leaves in the study."""


def advance(study: Study, record: TrialRecord, losses: tuple[float, ...]) -> None:
    for loss in losses:
        record.points.append(Point(len(record.points) + 1, 0, loss, resource=len(record.points) + 1))
        study.report(record.number, len(record.points), loss)


def begin(study: Study, **given: Any) -> TrialRecord:
    suggestion = study.ask(**given)
    assert suggestion is not None
    return TrialRecord(
        number=suggestion.number,
        params=dict(suggestion.params),
        distributions=dict(suggestion.distributions),
        started=1,
    )


def end(study: Study, record: TrialRecord, reason: Reason = Reason.BUDGET) -> None:
    record.reason, record.status, record.ended = reason, reason.status, 2.0
    study.tell(record.number, Verdict(reason), record.best_value)


def searched(path: Path, meanwhile: Callable[[], object]) -> tuple[Study, list[TrialRecord]]:
    """Runs two trials, calls `meanwhile` while the third runs, and runs three more."""
    study = make(path, Tpe())
    records = []
    for _ in range(2):
        records.append(begin(study))
        advance(study, records[-1], (5.0, 4.0))
        end(study, records[-1])
    records.append(begin(study))
    advance(study, records[-1], (5.0,))
    meanwhile()
    advance(study, records[-1], (3.0,))
    end(study, records[-1])
    records.append(begin(study, given={"learning_rate": 0.25}, by="user"))
    for _ in range(2):
        records.append(begin(study))
        advance(study, records[-1], (6.0, 5.0))
        end(study, records[-1], Reason.RUNG)
    return study, records


@pytest.fixture
def undisturbed(tmp_path: Path) -> list[Any]:
    return [record.params for record in searched(tmp_path / "calm.journal", lambda: None)[1]]


@pytest.mark.parametrize("name", CALLS)
def test_whatever_is_called_on_a_live_study(
    name: str, tmp_path: Path, undisturbed: list[Any], monkeypatch: pytest.MonkeyPatch, fault: Count
) -> None:
    """The call works, the search is not changed by it, every reader finds ours as we wrote them, and a resume keeps
    what was noted."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    path = tmp_path / "study.journal"
    _, records = searched(path, lambda: CALLS[name](opened(path)))
    assert [record.params for record in records] == undisturbed
    assert records[3].params["learning_rate"] == 0.25, "a person's own trial, and not what was enqueued elsewhere"
    states = journal_states(path)
    if name in THEIRS:
        assert len([t for t in opened(path).trials if "x" in t.params]) == THEIRS[name]
    if name != "delete_study":  # Optuna itself knows nothing of it any more
        ours = [t for t in opened(path).trials if "learning_rate" in t.params]
        assert len(ours) == 6
        for record, trial in zip(records, ours, strict=True):
            told = [p.value for p in record.points]
            if name == "tell of a running trial" and record.number == 2:
                told = told[:1]  # for Optuna it was over
            assert list(trial.intermediate_values.values()) == told
            assert trial.params["learning_rate"] == record.params["learning_rate"]
        assert [states[n] for n in range(6)] == ["COMPLETE"] * 3 + ["RUNNING"] + ["PRUNED"] * 2
    assert lost_end(path, states, records) is None
    again = make(path, Tpe(), records)
    assert len(again.optuna.trials) == 6
    theirs = opened(path)
    assert len(theirs.trials) == 6 and theirs.best_value == 3.0
    assert ATTRIBUTES.items() <= theirs.user_attrs.items()
    if name == "study.set_user_attr":
        assert theirs.user_attrs["mine"] == "kept"
    if name == "study.set_system_attr":
        assert theirs._storage.get_study_system_attrs(theirs._study_id)["mine"] == "kept"
    if name == "trial.set_user_attr":
        assert theirs.trials[2].user_attrs["mine"] == "kept" and "ending" in theirs.trials[2].user_attrs
    if name == "trial.set_system_attr":
        assert theirs.trials[2].system_attrs["mine"] == "kept"
    if name == "save_note of the study":
        assert get_note(theirs) == "# of the study"
    if name == "save_note of a trial":
        assert get_note(trial_of(theirs, 2)) == "# of trial 2"
    if name == "upload_artifact":
        assert any(key.startswith("artifacts:") for key in theirs._storage.get_study_system_attrs(theirs._study_id))
    fault("a study that others write while its search runs")


def test_a_note_on_a_trial_follows_it_where_others_are_dropped(tmp_path: Path) -> None:
    """Optuna counts trials of others in between; the journal that a resume writes has ours alone."""
    path = tmp_path / "study.journal"

    def meanwhile() -> None:
        opened(path).optimize(objective, n_trials=4)

    _, records = searched(path, meanwhile)
    theirs = opened(path)
    note = next(t for t in theirs.trials if t.params.get("learning_rate") == records[5].params["learning_rate"])
    save_note(trial_of(theirs, note.number), "of our trial 5")
    save_note(trial_of(theirs, 3), "of somebody's trial")
    assert note.number == 9
    make(path, Tpe(), records)
    assert get_note(trial_of(opened(path), 5)) == "of our trial 5"
    assert get_note(trial_of(opened(path), 3)) == ""


WRITER = """
import sys, optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
optuna.logging.set_verbosity(optuna.logging.ERROR)
study = optuna.load_study(study_name="first", storage=JournalStorage(JournalFileBackend(sys.argv[1])))
for number in range(30):
    study.set_user_attr(f"{sys.argv[2]}-{number}", number)
    if number % 5 == 0:
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
"""


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path, fault: Count) -> None:
    path = tmp_path / "study.journal"
    study = make(path, Tpe())
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, path, str(n)]) for n in range(2)]
    records = []
    while any(writer.poll() is None for writer in writers) or len(records) < 10:
        records.append(begin(study))
        advance(study, records[-1], (5.0, 4.0))
        end(study, records[-1])
        time.sleep(0.01)
    assert [writer.returncode for writer in writers] == [0, 0]
    end(study, begin(study))
    theirs = opened(path)
    written = {f"{n}-{number}" for n in range(2) for number in range(30)}
    assert set(theirs.user_attrs) == {*written, *ATTRIBUTES}
    assert len([t for t in theirs.trials if "x" in t.params]) == 12
    ours = [t for t in theirs.trials if "learning_rate" in t.params][:-1]
    assert [t.params["learning_rate"] for t in ours] == [record.params["learning_rate"] for record in records]
    assert all(list(t.intermediate_values.values()) == [5.0, 4.0] for t in ours)
    fault("a study that others write while its search runs")


def test_a_trial_that_comes_between_the_look_and_the_line_moves_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report is written without the lock: between the look at the file and the line, anybody may write."""
    path = tmp_path / "study.journal"
    study = make(path, Tpe())
    record = begin(study)
    came: list[int] = []

    def taken(lock: FileLock) -> bool:
        if not came:
            came.append(opened(path).ask().number)
        return False

    with monkeypatch.context() as patch:
        patch.setattr(FileLock, "is_taken", property(taken))
        advance(study, record, (5.0, 4.0))
    assert came == [1], "theirs came between"
    end(study, record)
    other = begin(study)
    advance(study, other, (3.0,))
    end(study, other)
    ours = [t for t in opened(path).trials if "learning_rate" in t.params]
    assert [(t.number, list(t.intermediate_values.values())) for t in ours] == [(0, [5.0, 4.0]), (2, [3.0])]
    assert [t.params["learning_rate"] for t in ours] == [r.params["learning_rate"] for r in (record, other)]


def test_a_lock_that_is_held_makes_nobody_wait_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "study.journal"
    study = make(path, Tpe())
    lock = JournalFileSymlinkLock(str(path))
    lock.acquire()
    size = path.stat().st_size
    began = time.monotonic()
    record = begin(study)
    advance(study, record, (5.0, 4.0))
    assert time.monotonic() - began < 20 and path.stat().st_size == size, "not a line, while another writes"
    lock.release()
    end(study, record)
    assert [list(t.intermediate_values.values()) for t in opened(path).trials] == [[5.0, 4.0]]


def test_a_lock_of_a_process_that_died_is_taken_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "study.journal"
    study = make(path, Tpe())
    monkeypatch.setattr(FileLock, "STALE_S", 1.0)
    JournalFileSymlinkLock(str(path)).acquire()
    record = begin(study)
    time.sleep(1.2)
    advance(study, record, (5.0, 4.0))
    end(study, record)
    assert not os.path.lexists(tmp_path / "study.journal.lock")
    assert opened(path).best_value == 4.0


def test_a_lock_that_stands_still_holds_up_no_beginning(tmp_path: Path) -> None:
    JournalFileSymlinkLock(str(tmp_path / "study.journal")).acquire()
    began = time.monotonic()
    make(tmp_path / "study.journal", Tpe())
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("junk", [b"garbage\n", b'{"op_code":4,', b"[" * 5000 + b"\n", b'{"op_code":99}\n', b"\xff\n"])
def test_junk_of_others_does_not_disturb(junk: bytes, tmp_path: Path, undisturbed: list[Any]) -> None:
    path = tmp_path / "study.journal"

    def meanwhile() -> None:
        with path.open("ab") as file:
            file.write(junk)

    _, records = searched(path, meanwhile)
    assert [record.params for record in records] == undisturbed
    assert not path.read_bytes().endswith(junk) and len(make(path, Tpe(), records).optuna.trials) == 6


def test_a_reader_meets_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    study, over = make(path, Tpe()), threading.Event()
    failures: list[Exception] = []

    def read() -> None:
        while not over.is_set():
            try:
                assert all(t.state in (TrialState.RUNNING, TrialState.COMPLETE) for t in opened(path).trials[1:])
            except Exception as error:
                failures.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(20):
        record = begin(study)
        advance(study, record, (5.0, 4.0))
        end(study, record)
    over.set()
    reader.join()
    assert not failures
