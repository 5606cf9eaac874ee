"""A search carried out: config + space -> Plan -> ray.tune.Tuner -> Outcome.

plan.py      what would run; starts nothing, imports no ray
cluster.py   Ray started or joined, and left
nodes.py     what a cluster's nodes offer, and whether each can work
carrying.py  rows to a node and adapters from it, where runs are kept in an object store
resources.py how many trials at a time, on what
worker.py    the Ray Trainable: one program instance, one trial after another
plaques.py   a row in the Ray dashboard for every running trial
tune.py      the part that Ray Tune carries out
books.py     what is asked of the study and written into the ledger, while Ray runs
signals.py   Ctrl-C and SIGTERM as a request to stop
search.py    all of it in order
"""
