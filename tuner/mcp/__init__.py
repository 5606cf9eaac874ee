"""tuner for agents: a server of the Model Context Protocol on standard input and output (`tuner mcp`).

tools.py      the tools: their arguments as models, and what each does, by the functions that the commands call
starting.py   a search in a process of its own, which goes on when the server has ended
server.py     the server, by the official SDK, which only this file imports
"""
