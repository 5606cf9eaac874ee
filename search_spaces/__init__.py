"""The shipped search spaces: YAML, each value with its reason. `tuner.config.space_source` reads them; no code here."""
