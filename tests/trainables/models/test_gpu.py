from __future__ import annotations

import pytest
import torch

from trainables.models import gpu
from tuner.contract import Fault, Reason


@pytest.mark.parametrize("given", [None, "", "-1", "0", "GPU-5ebe9f43"])
def test_a_gpu_that_was_given_and_cannot_be_used_is_no_cpu(monkeypatch: pytest.MonkeyPatch, given: str | None) -> None:
    if torch.cuda.is_available():
        pytest.skip("the GPUs here can be used")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    if given in (None, "", "-1"):
        gpu.require()
        return
    with pytest.raises(Fault, match=f"was given the GPU {given}") as caught:
        gpu.require()
    assert caught.value.verdict.reason is Reason.CONFIG
