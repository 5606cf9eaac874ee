"""Searches, each with a Ray of its own, in processes without a home, a user name, assertions and the like."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos import invariants
from tests.chaos.driving import ROOT
from tests.chaos.faults import Count
from tests.chaos.test_outputs import words
from tests.tuner.cli.test_cli_surroundings import PLACES, Place

pytestmark = pytest.mark.chaos

HOME, READ_ONLY, NAMELESS, TMP, WARNINGS, NO_ASSERTIONS, ASCII = (
    "no home folder",
    "a home folder that cannot be written",
    "a user without a name",
    "a temporary folder that is not there",
    "warnings as errors",
    "an interpreter without assertions",
    "an output that takes ASCII alone",
)
SEARCHES = {
    "no HOME": HOME,
    "a HOME that is not there": HOME,
    "a HOME that cannot be written": READ_ONLY,
    "a temporary folder that is not there": TMP,
    "warnings as errors": WARNINGS,
    "no assertions": NO_ASSERTIONS,
    "the C locale, taken at its word": ASCII,
    "all three closed": "a closed standard stream",
}


def search(place: Place, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **place.set}
    for name in (*place.unset, "RAY_ADDRESS", "RAY_AUTH_MODE"):
        environment.pop(name, None)
    python, *rest = words(folder, "--json")
    command = [python, *place.python.split(), *rest]
    line = f'{place.before} "$@" {place.after}'
    return subprocess.run(
        ["bash", "-c", line, "bash", *command],
        cwd=ROOT, env=environment, capture_output=True, text=True, errors="replace", timeout=400,
    )  # fmt: skip


def whole(done: subprocess.CompletedProcess[str], folder: Path) -> None:
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    invariants.check(folder / "run", num_trials=4, exit_code=0)


@pytest.mark.parametrize("name", SEARCHES)
def test_a_whole_search(name: str, tmp_path: Path, fault: Count) -> None:
    place = PLACES[name]
    done = search(place, tmp_path)
    whole(done, tmp_path)
    if not place.after:
        assert json.loads(done.stdout)["trials"] == 4
    fault(SEARCHES[name])


def test_a_user_id_that_nobody_has_named(tmp_path: Path, fault: Count) -> None:
    """As in a container that is started with --user: getpass and the home of the list of users fail."""
    others = tmp_path / "passwd"
    others.write_text("nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n")
    sources = tmp_path / "nsswitch.conf"
    sources.write_text("passwd: files\n")  # systemd's own source knows a root without the file
    binds = f"mount --bind {others} /etc/passwd && mount --bind {sources} /etc/nsswitch.conf"
    alone = f"unshare -m --propagation slave sh -c '{binds} && exec \"$@\"' sh"
    nobody = f"{sys.executable} -c 'import os, pwd; pwd.getpwuid(os.getuid())'"
    if "KeyError" not in subprocess.run(["bash", "-c", f"{alone} {nobody}"], capture_output=True, text=True).stderr:
        pytest.skip("no right to put another /etc/passwd in place")
    nameless = Place(before=alone, unset=("HOME", "USER", "LOGNAME", "LNAME", "USERNAME"))
    done = search(nameless, tmp_path)
    whole(done, tmp_path)
    log = (tmp_path / "run" / "logs" / "driver.log").read_text()
    assert f"no home folder (there is none): caches and Ray's token lie in /tmp/tuner-{os.getuid()}" in log
    fault(NAMELESS)
