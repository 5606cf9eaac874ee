"""Rows with images: read, checked, made smaller and kept once a search; encoded and collated as TRL does it.

vision.py      the facts that a preparation has of images, and what needs them; torch-free
reading.py     an image from a path, bytes or a URL, as RGB of a bounded size; names what is broken
blob.py        the images of a search in one file, each once
processors.py  loads the checkpoint's processor, and refuses a base that takes no images
collating.py   TRL's collator for rows with images
encoding.py    turns rows with images into token ids and labels, as the collator gives them
looking.py     the rows of a look: what an image costs, and what it looks like
travelling.py  the pictures that rows name, for a search that is sent to another machine
opening.py     the stored rows, as a trainer reads them

`trainables.preparing` chooses between this package's encoder and that of rows of text (`trainables.data.encoding`).
Only processors.py, collating.py, encoding.py, looking.py and opening.py cost torch.
"""
