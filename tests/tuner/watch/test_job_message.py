"""The message of a submitted search's job. What Ray keeps of a job is read and written in test_submit.py."""

from __future__ import annotations

from tuner.contract import Reason, Status
from tuner.results.ledger import Event, Kind
from tuner.results.records import SearchRecord
from tuner.watch.job_message import JobMessage, progress


def test_it_says_how_far_the_search_is_and_what_is_best() -> None:
    record = SearchRecord()
    record.apply(Event(Kind.SEARCH, details={"name": "first", "num_trials": 16}))
    assert progress(record) == "0 of 16 trials ended"
    for number, loss in enumerate((3.0, 2.31, 1.0)):
        record.apply(Event(Kind.STARTED, number=number, trial=f"t{number}", attempt=1, params={}))
        record.apply(
            Event(Kind.EVALUATION, number=number, attempt=1, step=9, metrics={"eval_loss": loss},
                  best={"eval_loss": loss}, details={"resource": 9})
        )  # fmt: skip
    record.apply(
        Event(Kind.ENDED, number=2, trial="t2", attempt=1, status=str(Status.FAILED), reason=str(Reason.ERROR))
    )
    told = "1 of 16 trials ended (1 failed), 2 running · best loss 2.31 (trial 1)"
    assert progress(record) == told, "a failed trial is not the best"


def test_a_search_that_was_not_submitted_has_no_job() -> None:
    JobMessage(SearchRecord()).turn()  # would raise without a Ray
