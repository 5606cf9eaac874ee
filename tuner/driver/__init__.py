"""A search carried out, on the driver: config + space -> Plan -> ray.tune.Tuner -> Outcome.

plan.py              what would run; starts nothing, imports no ray
session.py           all of it in order: a new search or a resume, and its end
resolved_settings.py the settings of a search as its folder keeps them
ray_tune.py          the part that Ray Tune carries out
trial_manager.py     what happens to an attempt: written into the ledger, then told to the study, while Ray runs
dispatch.py          which trial runs next: suggested, begun
attempts.py          the attempts of a session, and the state that each is in
periodic.py          what the driver's loop does now and then
stopping.py          why a search is to stop while Ray runs it
scheduler.py         Ray's scheduler: what every evaluation is judged by
retries.py           what becomes of a trial whose attempt came to nothing
watchdog.py          which running trial hangs
draining.py          trials leave a node that is about to go
control.py           what people ask of a running search: stop, add, pause, resume
disk_guard.py        the pause where the run's disk is full, the end where it fails or is gone
ingredients.py       what trials are made of, then and now
pinning.py           the commits of what is named on the hub
permits.py           code of their own that the user let a search run, for a resume
ending.py            the end of a session: the best adapter, the ledger's last line, the exit code
"""
