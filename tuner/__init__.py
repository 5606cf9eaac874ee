"""The search, on the driver: config -> space -> study, scheduling, results -> execution -> report -> cli.

Nothing in this package imports torch, transformers, trl or peft; a program that trains is found by name
(`tuner.contract.load_program`) and runs in worker processes.
"""

__version__ = "0.1.0"
