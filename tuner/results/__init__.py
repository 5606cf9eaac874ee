"""Writes down what happened in a search, once, and reads it back.

ledger.py        trials.jsonl, append-only, one writer: the truth
records.py       folds events into one record a search; tables, status and resume read it
trial.py         the record of one trial
budget.py        which budget of a search is spent
rates.py         what trials took, by which another search is foreseen
earlier_keys.py  the two keys that version 0.1 had for what a trial measures
folder.py        the run folder: its name, its files
lock.py          one driver a run folder; whether it is locked, without taking the lock
requests.py      what people ask of a running driver, and its answers
adapters.py      which adapters are kept, and best/ at the end
export.py        copies the winner out of its run folder, or merges it
program_calls.py calls the program of a finished search, where its user lets it run
scoring.py       scores the adapters of a run beside their base
own_functions.py a function of the user's own that scores or judges answers
judging.py       asks a judge which of two answers is better, in both orders
paired.py        means over rows with their uncertainty, compared row by row
harness.py       hands models over to lm-evaluation-harness
model_card.py    the README of best/
sameness.py      compares what trials are made of, then and now
versions.py      the versions of the libraries that a search ran on
storage.py       runs kept in an object store
command_line.py  the commands that a message tells a person to run
untrusted_json.py  checks a line of the ledger
untrusted_read.py  reads a file out of a folder that others may write
journal_check.py   checks the ledger against the study's journal
study_attributes.py  what a search and its trials say of themselves in the study
"""
