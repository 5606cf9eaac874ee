"""What runs on a worker: programs that fine-tune. No ray in here, ever.

sft.py           the SFT program: TRL's SFTTrainer over a resident base, one adapter after another
hf/              a solo trial: the Trainer, its arguments and callbacks, and a thread that runs it step by step
packed/          several trials on one base, in one forward and backward
after_training.py  the part of the SFT program for trained adapters
answers/         answers generated, and scored against the rows' own
preparing.py     the rows of a search, from the settings to the tokenized files
runtime.py       what every process that trains begins with: settings, rows, base, the facts of a trial's set-up
serving/         an adapter handed to a server, and compared with the trained model
model_card.py    what the card of an adapter says
fingerprints.py  what a trial is made of, by content; compared on a resume
models/          the base model and its LoRA adapters: loading, quantization, targets, counting, restoring
images/          rows with images: read, encoded and collated as TRL does it
data/            rows to token ids and labels: read, checked, split and tokenized
hub/             the Hugging Face hub and its cache on this machine
fitting.py       how a trial is arranged to fit into memory
settings/        the sections of the experiment file, and what of them a search may vary; torch-free
guards.py        checks while a trial trains: there is something to learn, and it is being learned
progress.py      how far a trial has come over all of its attempts
states.py        a trial's state on disk
heartbeat.py     the file that shows that a trial is alive
out_of_memory.py which errors are out of memory, and the fault that they are raised as
imports.py       the imports of torch and the libraries on it
quiet.py         the libraries log errors only

An import goes down this list, never up: hf/ and packed/ do not know each other, and what both need lies below them
(the contract "layers of what trains" in pyproject.toml). The driver finds a program by name
(`tuner.contract.load_program`); a program imports nothing of the driver but `tuner.contract`. Importing this package or
sft.py costs no torch: heavy imports happen when a program starts.
"""
