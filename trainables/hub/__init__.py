"""The Hugging Face hub and its cache on this machine.

sources.py      which of what the settings name lies on the hub, and at which commit
client.py       the hub asked: is it there, which commit, and files downloaded into the cache
local_cache.py  what the cache holds, read without a lock and without a question to the hub
refusals.py     errors of the hub, the network and the cache, in words

Importing these modules costs no torch.
"""
