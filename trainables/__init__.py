"""What runs on a worker: programs that fine-tune. No ray in here, ever.

sft.py      the SFT program: TRL's SFTTrainer over a resident base, one adapter after another
settings/   its sections of the experiment file, and what of them a search may vary; torch-free
data/       rows to token ids and labels, read, checked, split and tokenized once a search
fingerprints.py  what a trial is made of, by content; compared on a resume
models/     the base model and its LoRA adapters: loading, quantization, targets, counting, taking away
hf/         the Trainer: its arguments, callbacks, guards, and the turn-taking that lets the driver judge
packed/     several trials on one base, in one forward and backward
worker.py   what every way of training on a worker begins with
states.py   a trial's state on disk
fitting.py  how a trial is arranged to fit into memory
alive.py    the sign that a trial is alive

The driver finds a program by name (`tuner.contract.load_program`); a program imports nothing of the driver but
`tuner.contract`. Importing any module named here costs no torch: heavy imports happen when a program starts.
"""
