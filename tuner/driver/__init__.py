"""Runs a search, on the driver: config + space -> Plan -> ray.tune.Tuner -> Outcome.

plan.py              what would run; starts nothing, imports no ray
outlook.py           what a search will take, foreseen before it starts
corners.py           which ends of a space are too large for a GPU
probing.py           a probe: a few steps of the first trials, which say what a search takes
session.py           a new search or a resume, from its start to its end
resolved_settings.py the settings of a search as its folder keeps them
training.py          one point of a search trained again: `train NAME`
ray_tune.py          the part that Ray Tune carries out
trial_manager.py     writes what happens to an attempt into the ledger, then tells the study, while Ray runs
dispatch.py          which trial runs next, and its start
attempts.py          the attempts of a session, and the state that each is in
budgets.py           the end of a search whose budget is spent
resuming.py          what a resume may change of a search
periodic.py          calls of the driver's loop that are due every few seconds
stopping.py          why a search is to stop while Ray runs it
scheduler.py         Ray's scheduler: what every evaluation is judged by
retries.py           what becomes of a trial whose attempt came to nothing
watchdog.py          which running trial hangs
draining.py          moves trials away from a node that is about to go
control.py           what people ask of a running search: stop, add, pause, resume
disk_guard.py        the pause where the run's disk is full, the end where it fails or is gone
ingredients.py       what trials are made of, and whether that has changed since the search began
pinning.py           the commits of what is named on the hub
permits.py           which code of their own the user let a search run, kept for a resume
ending.py            the end of a session: the best adapter, the ledger's last line, the exit code
"""
