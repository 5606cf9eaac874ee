"""Derives all seeds of a search from one, by purpose, so that no two uses draw the same random numbers."""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, purpose: str, number: int = 0) -> int:
    """A 31-bit seed for one purpose ("sampler", "trial", "data") and, where it differs by trial, its number."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{number}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
