"""What is found out about a cluster before it is joined; against real Rays in integration/test_cluster.py."""

from __future__ import annotations

import pytest

from tests.programs.answering import closed_port, listening
from tuner.answers import No, Unknown, Yes
from tuner.contract import InputError
from tuner.ray_cluster import joining


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_MODE", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(joining, "_ANSWERS_WITHIN_S", (0.3, 0.3))


def test_who_listens() -> None:
    with listening() as silent:
        assert joining.listens(silent.place) == Yes()
    assert isinstance(joining.listens(closed_port()), No)
    assert isinstance(joining.listens("no-such-host.invalid:6379"), Unknown)


@pytest.mark.parametrize("answer", [None, b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_who_does_not_speak_is_not_taken_for_one_that_wants_a_token(
    monkeypatch: pytest.MonkeyPatch, answer: bytes | None
) -> None:
    with listening(answer) as stranger:
        found = joining.asks_for_token(stranger.place)
        assert isinstance(found, Unknown) and found.why
        with pytest.raises(
            InputError, match=r"it could not be found out whether the cluster at .* asks for a token"
        ) as told:
            joining.require_cluster(stranger.place)
        assert "set RAY_AUTH_MODE to token where it asks for one" in told.value.remedy
        # Where the user has said it, that holds for a cluster that does not tell
        monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
        assert joining.require_cluster(stranger.place) == stranger.place


def test_auto_in_a_job_is_the_jobs_own_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever other Ray runs on the machine: a job has RAY_ADDRESS from its cluster."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with listening() as cluster:
        monkeypatch.setenv("RAY_ADDRESS", cluster.place)
        assert joining.require_cluster("auto") == cluster.place


def test_nobody_there() -> None:
    place = closed_port()
    with pytest.raises(InputError, match=f"no Ray cluster answers at {place}"):
        joining.require_cluster(place)
