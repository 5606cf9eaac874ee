"""A solo trial: SFTTrainer, its arguments and callbacks, and a thread that runs it step by step.

solo_trial.py         one trial on a resident base, from set-up to removal
arguments.py          a trial's SFTConfig
resumable_trainer.py  an SFTTrainer that continues from a state of ours
stepper.py            runs a loop with callbacks one item at a time
reporter.py           callback: evaluates, saves the adapter, hands the evaluation over and waits
frozen_guard.py       callback: raises a fault where a trainer would run without learning
process_batches.py    the batches that each process of a group takes
collectives.py        values and tensors exchanged among the processes of a group
"""
