"""The search, on the driver: config -> space -> study, scheduling, results -> driver -> report -> cli.

cli/           the commands
mcp/           the server for agents
report/        what people see, from records alone
driver/        runs a search
worker/        what runs in Ray's workers
ray_cluster/   starts or joins Ray, and checks its nodes
cluster/       a search from a laptop to a cluster
study/         the Optuna study
scheduling/    when a trial ends before its budget
results/       the run folder: what happened, written down once
watch/         a search seen from outside: metrics, trackers, dashboards
space/         what a trial may vary
config/        what the user wrote, checked
demo/          the embedded example
contract/      what the driver and a program say to each other
error_text.py  a line of what an exception says; the name that was probably meant
failures.py    turns what a call raised into a verdict
addresses.py   addresses of Ray clusters, and how they are reached past any proxy
answers.py     what a probe found: yes, no, or that it could not be found out
subprocess_call.py  a program's class methods in a process of their own
importing.py   which code of a user's own may run
guest.py       runs that code in a process of its own
blame.py       tells what went wrong in it, with the author's file and line
redaction.py   takes secrets out of what is written
disks.py       whether an error is a disk's: full, failing or gone
signals.py     SIGINT, SIGTERM, SIGHUP and SIGQUIT as a request to stop
streams.py     standard input, output and error, also closed, full or without a reader
surroundings.py  sets missing environment variables (home, user) and Python's warnings
seeds.py       one seed, split by purpose
api.py         `from tuner import search, plan, open_run`

Nothing in this package imports torch, transformers, trl or peft; a program that trains is found by name
(`tuner.contract.load_program`) and runs in worker processes.
"""

from tuner.api import Run, open_run, plan, search

__all__ = ["Run", "open_run", "plan", "search"]
__version__ = "0.1.0"
