"""What happened: written down once, read everywhere.

ledger.py   trials.jsonl, append-only, one writer: the truth
records.py  events folded into one record a trial and one a search; tables, status and resume read these
folder.py   the run folder: its name, its lock, its files
adapters.py which adapters are kept, and best/ at the end
"""
