"""Decides when a trial ends before its budget: algorithms compare trials, rules look at one curve.

algorithms/ one file an algorithm: curve and peers in, decision out; the registry of `scheduler.kind`
rules/      one file a rule: curve in, verdict out
peers.py    the values that other trials had at the rungs
judge.py    judges all trials of a search: an algorithm, and the values that it has seen
ladder.py   where the rungs lie and where trials are evaluated
forecast.py how much of its trials' budgets a search will use
wire.py     how a report travels in a Ray result
"""
