"""What a person should know of the settings before anything runs, and settings that cannot work. Torch-free."""

from __future__ import annotations

from collections.abc import Collection

from trainables.models import base_folder, positions
from trainables.models.adapter_files import check_adapter
from trainables.settings import Settings
from trainables.settings.unused import unused


def remarks(settings: Settings, varied: Collection[str]) -> tuple[str, ...]:
    """Sentences for the user. varied: names that the space searches.

    Raises InputError where the base is no language model by its config, where rows may be longer than its table of
    positions, and where the adapter that training goes on from does not go with the settings.
    """
    model = settings.model
    told = f"{model.model_name_or_path} at revision {model.model_revision}"
    remote = f"model.trust_remote_code: code that comes with {told} runs in every worker"
    config = base_folder.config(model) or {}
    base_folder.require_language_head(config, model.model_name_or_path)
    check_adapter(settings, varied)
    beyond = positions.check_length(config, settings.data.max_length)
    return (*((remote,) if model.trust_remote_code else ()), *((beyond,) if beyond else ()), *unused(settings, varied))
