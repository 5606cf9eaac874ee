"""A user's own program and space function beside their search file: they are found from any folder, and what they raise
is reported as theirs."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.chaos import driving, invariants
from tests.chaos.faults import Count
from tuner.importing import ALLOWED

pytestmark = pytest.mark.chaos
SPACE = """\
def drawn(trial):
    if trial.number == 3:
        LINE
    return {"learning_rate": trial.suggest_float("learning_rate", 1e-4, 0.5, log=True)}
"""
FAILS = {
    "raises": ("return {'learning_rate': late}", "raised NameError: name 'late' is not defined"),
    "leaves": ("raise SystemExit(0)", "called sys.exit(0)"),
    "hangs": ("while True: pass", "did not come back within 10 s"),
    "dies": ("import os; os._exit(0)", "ended its process with exit code 0"),
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("case", FAILS)
def test_a_space_function_that_fails_in_a_running_search(case: str, tmp_path: Path, fault: Count) -> None:
    """Exit code 2 with their line; what ran is kept; mended, a resume that accepts the change goes on, without being
    told again what it may run. The program lies beside the file, and the command is typed elsewhere."""
    line, told = FAILS[case]
    (tmp_path / "spaces.py").write_text(SPACE.replace("LINE", line))
    (tmp_path / "programs.py").write_text("from tests.programs.toy import Toy\nclass Mine(Toy): ...\n")
    alone = {ALLOWED: "", "XDG_STATE_HOME": str(tmp_path / "state")}
    run = {"program": "programs:Mine", "name": "run"}
    written = {"train": {}, "search": {"num_trials": 5, "space": "spaces:drawn"}, "run": run}
    written["resources"] = {"max_concurrent_trials": 1}
    (tmp_path / "search.yaml").write_text(yaml.safe_dump(written))
    driver = driving.start(tmp_path, str(tmp_path / "search.yaml"), environment=alone)
    code, _, errors = driver.end()
    fault("a space function that fails in a running search")
    assert code == 2 and told in errors, errors
    assert "spaces.py" in errors and "Traceback" not in errors and "tuner/" not in errors.rpartition("error: ")[2]
    before = driver.events
    assert len(invariants.check_ledger(driver.folder).ended) == 3

    (tmp_path / "spaces.py").write_text(SPACE.replace("LINE", "pass"))
    driver = driving.resume(tmp_path, environment=alone)
    code, _, errors = driver.end()
    assert code == 2 and "spaces:drawn changed since" in errors and "--accept-changes" in errors, errors
    driver = driving.resume(tmp_path, "--accept-changes", environment=alone)
    code, _, errors = driver.end()
    assert code == 0, errors
    invariants.check_kept(before, driver.events)
    invariants.check(driver.folder, num_trials=5, exit_code=code)
