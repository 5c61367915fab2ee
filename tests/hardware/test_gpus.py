from __future__ import annotations

from pathlib import Path

import pytest

from vlfleet.engine.embedded import EmbeddedEngine
from vlfleet.engine.launch import EngineSpec
from vlfleet.hardware import has_gpu


@pytest.mark.parametrize(
    ("files", "visible", "there"),
    [
        ([], None, False),
        (["nvidiactl", "nvidia-uvm"], None, False),  # a driver without a card, as in some containers
        (["nvidiactl", "nvidia0", "nvidia1"], None, True),
        (["nvidia0"], "0", True),
        (["nvidia0"], "", False),
        (["nvidia0"], "-1", False),
    ],
)
def test_a_gpu_is_there_when_it_can_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: list[str], visible: str | None, there: bool
) -> None:
    for name in files:
        (tmp_path / name).touch()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert has_gpu(tmp_path) is there


def test_two_replicas_do_not_share_one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for gpu, replicas in ((True, 1), (False, 2)):
        monkeypatch.setattr("vlfleet.hardware.has_gpu", lambda gpu=gpu: gpu)
        assert EmbeddedEngine().default_replicas(EngineSpec(Path(), "")) == replicas
