from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.trainables.packed.bench import Bench, Make


@pytest.fixture(scope="package", autouse=True)
def _one_thread() -> Iterator[None]:
    import torch

    torch.set_num_threads(1)
    yield


@pytest.fixture(scope="package")
def bench(sft_settings: Make, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(sft_settings(), tmp_path_factory.mktemp("packed"))
