"""An adapter handed to a server: what it needs, what it refuses, and whether it computes what was trained.

exporting.py  all of it in order: refused or written, compared, and the commands that serve it
servers.py    what vLLM, Ollama, llama.cpp and PEFT load of an adapter, and their commands; torch-free
modelfile.py  Ollama's Modelfile; a chat template as a template of Ollama's; torch-free
comparing.py  the logits of the trained model, and how far those of what was written are from them
plain.py      the process that loads what was written by transformers and PEFT alone
"""
