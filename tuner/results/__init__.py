"""What happened: written down once, read everywhere.

ledger.py        trials.jsonl, append-only, one writer: the truth
records.py       events folded into one record a search; tables, status and resume read it
trial.py         the record of one trial
earlier_keys.py  the two keys that version 0.1 had for what a trial measures
folder.py        the run folder: its name, its files
lock.py          one driver a run folder, and looks that take nothing
requests.py      what people ask of a running driver, and its answers
adapters.py      which adapters are kept, and best/ at the end
export.py        the winner, taken out of its run folder
model_card.py    the README beside it
sameness.py      what trials are made of, then and now
versions.py      the versions of the libraries that trained it
storage.py       runs kept in an object store
command_line.py  the commands that a message tells a person to run
untrusted_json.py  what a line of the ledger must be like
untrusted_read.py  a file out of a folder that others may write
journal_check.py   what the study's journal says of the ledger
"""
