"""The Optuna study: what to try next, told the truth about every ending.

samplers.py a sampler for each kind, built anew for every trial from the search's seed and the trial's number
grid.py     a walk over every point of a finite space
journal.py  Optuna's journal, that others may write to as well, and a window on it for samplers
distinct.py each point of a finite space once
study.py    the durable study in the run folder: ask, report, tell, rebuild from the ledger
searcher.py the Ray Tune Searcher over it
"""
