"""What a model answers: generated, and scored against what the rows have.

metrics.py     numbers of one answer beside the row's own: exact_match, rouge_l and the others; torch-free
prompts.py     rows as prompts to generate from, and the answers that they have; torch-free
generating.py  greedy answers of many prompts at a time
sample.py      the validation rows that every trial of a search answers; torch-free
measuring.py   measures trials by their answers when they end; torch-free
losses.py      the loss of each row
scoring.py     a base and adapters on it, one after the other, on the same rows
"""
