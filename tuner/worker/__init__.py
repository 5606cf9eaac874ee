"""What runs in Ray's workers: a trial, alone, in a slot of an engine, or in several processes.

trial_actor.py    the Ray trainable: one program, one trial after another
config.py         what travels to a worker and back
engine_actor.py   the engine of packed trials on a GPU, which take its slots
engine_pool.py    starts the engines of a search, hands them the prepared data, ends them
solo_actor.py     an unpacked trial beside an engine
engine_client.py  a packed trial's side of its engine
process_group.py  a trial in several processes: Ray Train's group, and the trial's side of it
group_cleaning.py frees what a group holds when its worker is killed
trial_log.py      writes what the libraries log while a trial runs into its log file
store_sync.py     brings rows to a node and adapters from it, where runs are kept in an object store
"""
