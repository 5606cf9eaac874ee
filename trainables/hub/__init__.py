"""The Hugging Face hub and its cache on this machine.

sources.py      what the settings name on the hub, and at which commit
client.py       requests to the hub: does it answer, which commit, and files downloaded into the cache
local_cache.py  what the cache holds, read without a lock and without a request to the hub
refusals.py     errors of the hub, the network and the cache as InputError

Importing these modules costs no torch.
"""
