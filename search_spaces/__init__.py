"""Shipped search spaces: YAML, a reason beside each value. Data of `tuner.config.space_source`; no code here."""
