"""The Trainer: its arguments, callbacks, guards, and the turn-taking that lets the driver judge.

quiet.py      the libraries beneath speak only when something is wrong
imports.py    a worker's imports, and what is left out of them
arguments.py  a trial's SFTConfig
turns.py      a thread and its caller taking strict turns
reporter.py   callback: stops at every evaluation point, measures, hands over, waits for its turn
guards.py     callback and checks: nothing learns in silence
saving.py     the adapter on disk, written beside its place and renamed
resuming.py   a trial that goes on from its state
sharing.py    which rows each process of a group takes
together.py   what the processes of a group tell each other
trial.py      one trial on a resident base, from set-up to taking everything away
"""
