"""Turns rows into token ids and labels: reads, checks, splits and tokenizes them once a search.

reading.py     reads rows from files, patterns, folders and hub ids, and chooses the split
folders.py     several files as one set, by a pattern or in a folder
files.py       the rows of one file; names malformed input by file and line
text_files.py  the bytes of a file, decompressed, as UTF-8
rows.py        rows that are decoded when they are asked for, and their places
formats.py     finds out which of TRL's formats the rows have, and which column holds what
advice.py      refuses unknown columns, with the settings that read this very file
image_parts.py the places of images in messages, and what each is read from
messages.py    the turns of chat files, with the roles that a chat template knows
shaping.py     a row in TRL's format
review.py      looks at every row: what is left out, what is there twice, what is not read
counted.py     counts rows that are equal, and columns that are not read
bad_rows.py    rows that cannot be learned from, counted, left out or refused
findings.py    what was found out, as facts and as sentences
templates.py   writes conversations with a chat template, and finds out what it leaves out
splitting.py   splits validation rows off the training rows, from a seed
tokenizers.py  loads the tokenizer with its pad and end tokens and its chat template
encoding.py    what every encoder of rows does, and the encoder of text
tokenizing.py  turns rows into `input_ids` and `labels`, exactly as SFTTrainer prepares them
tokens.py      tokenized rows as flat arrays, and what was counted
look.py        the rows as the model sees them, before a search
look_tokens.py the rows of a look in tokens
look_rows.py   the rows that a look is at: those that the preparation would learn from
look_sets.py   each of them once: what is refused, empty, equal, unused
sampling.py    a sample of a large file, for the look
measuring.py   lengths in tokens, and what another max_length would cost
showing.py     a row decoded, with its learned tokens marked
contents.py    fingerprints of files by their content
store.py       the tokenized rows on disk, under a fingerprint of all they depend on

`trainables.preparing` does all of it in order.
Nothing here imports torch, unless the tokenizer is one that only transformers' AutoTokenizer can load.
"""
