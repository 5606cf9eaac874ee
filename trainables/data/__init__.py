"""Rows to token ids and labels: read, checked, split and tokenized once a search.

reading.py     files, folders and hub ids to rows; malformed input is named by file and line
formats.py     which of TRL's formats the rows have, and that every row keeps to it
splitting.py   validation from the training rows, once, from a seed
tokenizers.py  the tokenizer, its pad and end tokens and its chat template
tokenizing.py  rows to `input_ids` and `labels`, exactly as SFTTrainer prepares them
contents.py    files known by their content
store.py       the tokenized rows on disk, under a fingerprint of all they depend on

`trainables.preparing` does all of it in order.
Nothing here imports torch, unless the tokenizer is one that only transformers' AutoTokenizer can load.
"""
