"""Turns rows into token ids and labels: reads, checks, splits and tokenizes them once a search.

reading.py     reads rows from files, folders and hub ids; names malformed input by file and line
formats.py     finds out which of TRL's formats the rows have, and checks that every row has it
splitting.py   splits validation rows off the training rows, from a seed
tokenizers.py  loads the tokenizer with its pad and end tokens and its chat template
tokenizing.py  turns rows into `input_ids` and `labels`, exactly as SFTTrainer prepares them
look.py        the rows as the model sees them, before a search
sampling.py    a sample of a large file, for the look
measuring.py   lengths in tokens, and what another max_length would cost
showing.py     a row decoded, with its learned tokens marked
contents.py    fingerprints of files by their content
store.py       the tokenized rows on disk, under a fingerprint of all they depend on

`trainables.preparing` does all of it in order.
Nothing here imports torch, unless the tokenizer is one that only transformers' AutoTokenizer can load.
"""
