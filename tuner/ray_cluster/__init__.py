"""The Ray that a search runs on: started here or joined, its nodes and what they offer.

session.py   starts or joins Ray, and ends it
joining.py   checks a cluster before it is joined
home.py      the folder and the processes of a Ray that is started here
reaper.py    the process that ends that Ray when the driver is gone
nodes.py     what a cluster's nodes offer, and whether each can work
resources.py how many trials at a time, on what
token.py     Ray's token, its owner's alone
"""
