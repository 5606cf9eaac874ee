"""The Optuna study: suggests what to try next, and is told how every trial ended.

samplers.py a sampler for each kind, built anew for every trial from the search's seed and the trial's number
rungs/      a sampler that models the losses at rungs
grid.py     a sampler that visits every point of a finite space
journal.py  the storage: Optuna's journal file, which others may write to as well, and the trials that samplers see
distinct.py draws each point of a finite space once
study.py    the durable study in the run folder: ask, report, tell, rebuild from the ledger
searcher.py the Ray Tune Searcher over it
importance.py   which parameters mattered, and how far chance goes
from_records.py a study in memory of some trials of a ledger, for Optuna's plots
"""
