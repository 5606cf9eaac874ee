"""A search carried out: config + space -> Plan -> ray.tune.Tuner -> Outcome.

plan.py      what would run; starts nothing, imports no ray
cluster.py   Ray started or joined, and left
joining.py   what is found out about a cluster before it is joined
home.py      the folder and the sessions of a Ray that is started here
reaper.py    the process that ends what is left of it when the driver is gone
nodes.py     what a cluster's nodes offer, and whether each can work
carrying.py  rows to a node and adapters from it, where runs are kept in an object store
resources.py how many trials at a time, on what
worker.py    the Ray Trainable: one program instance, one trial after another
plaques.py   a row in the Ray dashboard for every running trial
tune.py      the part that Ray Tune carries out
books.py     what is asked of the study and written into the ledger, while Ray runs
retries.py   what becomes of a trial whose attempt came to nothing
watchdog.py  which running trial hangs
draining.py  trials leave a node that is about to go
control.py   what people ask of a running search: stop, add, pause, resume
engines.py   packed trials: an engine a GPU, whose slots they take
remote.py    a packed trial's side of its engine
ranks.py     a trial in several processes
disk.py      the pause where the run's disk is full
settings.py  the settings of a search as its folder keeps them
ingredients.py what trials are made of, then and now
pinning.py   the commits of what is named on the hub
permits.py   code of their own that the user let a search run, for a resume
token.py     Ray's token, its owner's alone
signals.py   SIGINT, SIGTERM, SIGHUP and SIGQUIT as a request to stop
ending.py    the end of a session: the best adapter, the ledger's last line, the exit code
search.py    all of it in order
"""
