"""The run folder: contained, not overwritten, one writer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tuner.report import searches
from tuner.contract import InputError
from tuner.results import untrusted_json as strict
from tuner.results.folder import RunFolder, create_run, open_run
from tuner.results.journal_check import journal_states, lost_end
from tuner.results.ledger import Event, Kind


@pytest.mark.parametrize(
    "name", ["../evil", "a/b", "", ".hidden", "-x", "a" * 65, "naïve", "a b", "/etc", "..", "a\n", "a\x00"]
)
def test_a_name_that_could_leave_the_storage_path_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot be the name of a run"):
        create_run(tmp_path / "runs", name)
    assert not list(tmp_path.iterdir())


def test_an_existing_run_is_refused_with_the_line_that_resumes_it(tmp_path: Path) -> None:
    create_run(tmp_path, "first").ledger.touch()
    with pytest.raises(InputError, match="--resume first"):
        create_run(tmp_path, "first")


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda place: place.symlink_to("nowhere"), "taken by a link that leads nowhere"),
        (lambda place: place.symlink_to("first"), "taken by a link that leads nowhere"),
        (lambda place: place.touch(), "taken by a file"),
        (lambda place: place.mkdir(), "taken by a folder without a run in it"),
        (lambda place: (place / "logs").mkdir(parents=True), "taken by a folder without a run in it"),
    ],
)
def test_what_has_the_name_of_a_run_and_is_none(tmp_path: Path, make: Callable[[Path], None], told: str) -> None:
    """A resume, which was advised, finds nothing there; and there was room enough."""
    make(tmp_path / "first")
    with pytest.raises(InputError, match=told) as caught:
        create_run(tmp_path, "first")
    assert "--name" in caught.value.remedy and "room" not in caught.value.remedy


@pytest.mark.parametrize("make", [lambda place: place.touch(), lambda place: place.symlink_to("nowhere")])
def test_a_storage_path_that_is_no_folder(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "runs")
    for name in ("first", "second"):
        try:
            create_run(tmp_path / "runs", name)
        except InputError as error:
            assert "is no folder" in str(error) and "make room" not in str(error)
        else:
            assert (tmp_path / "nowhere" / name).is_dir(), "made behind the link"


def test_a_missing_run_names_the_nearest(tmp_path: Path) -> None:
    (create_run(tmp_path, "first").ledger).touch()
    with pytest.raises(InputError, match="one of: first"):
        open_run(tmp_path, "frist")


def test_a_full_disk_is_said_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="MiB are free"):
        create_run(tmp_path, "first", needed=2**62)
    assert not (tmp_path / "first").exists()


def test_a_path_to_a_run_folder_is_a_name_too(tmp_path: Path) -> None:
    run = create_run(tmp_path, "first")
    run.ledger.touch()
    assert open_run(Path("elsewhere"), str(run.path)) == RunFolder(run.path)


@pytest.fixture
def searched(tmp_path: Path) -> RunFolder:
    """A run folder with the ledger of a finished search, and a journal with its trials' endings."""
    folder = create_run(tmp_path, "first")
    events = searches.finished().events
    folder.ledger.write_text("".join(event.to_json() + "\n" for event in events), encoding="utf-8")
    states = [{"op_code": 4, "study_id": 0, "state": 0}, {"op_code": 6, "trial_id": 0, "state": 1}]
    folder.study.write_text("".join(json.dumps(state, separators=(",", ":")) + "\n" for state in states))
    return folder


def test_an_event_of_a_newer_version_is_not_to_be_deleted(searched: RunFolder) -> None:
    newer = Event(Kind.NOTE).to_json().rpartition(',"sum"')[0].replace('"note"', '"praised"') + "}"
    lines = searched.ledger.read_text().splitlines()
    searched.ledger.write_text("\n".join([*lines[:3], strict.signed(newer), *lines[3:]]) + "\n")
    with pytest.raises(InputError, match=r"line 4: .*'praised' is not a valid Kind") as caught:
        searched.record()
    assert "version that wrote it" in caught.value.remedy and "delete" not in str(caught.value)


def test_what_is_advised_for_a_damaged_line_works(searched: RunFolder) -> None:
    """Whichever line it is: cut off before it, and without the journal, the run can be gone on with."""
    lines = searched.ledger.read_bytes().splitlines(keepends=True)
    kinds = set()
    for number in range(1, len(lines) + 1):
        searched.ledger.write_bytes(b"".join([*lines[: number - 1], b"garbage\n", *lines[number:]]))
        with pytest.raises(InputError, match=f"line {number}: ") as caught:
            searched.record()
        if number == 1:
            assert caught.value.remedy == "restore the ledger from a backup"
            continue
        assert f"all that follows line {number - 1}: cut the ledger off there, delete study.journal" in str(
            caught.value
        )
        searched.ledger.write_bytes(b"".join(lines[: number - 1]))
        record = searched.record()
        missing = searched.study.with_name("gone")
        assert lost_end(missing, journal_states(missing), record.trials.values()) is None
        kinds.add(json.loads(lines[number - 1])["event"])
    assert {"started", "setup", "evaluation", "ended", "finished"} <= kinds


def test_folders_that_were_removed_are_made_again(tmp_path: Path) -> None:
    folder = create_run(tmp_path, "first", needed=0)
    for place in folder.places:
        place.rmdir()
    folder.restore_places()
    assert all(place.is_dir() for place in folder.places)
    folder.logs.rmdir()
    folder.logs.symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="is no folder"):
        folder.restore_places()
