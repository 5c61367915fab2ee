"""Memory terms from logs: recorded ones of an H200, and made-up ones of which the truth is known."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.calibrate.fake import H200, TRUE, decided
from tests.plan.shapes import CONFIGS
from tests.plan.test_memory import STARTS, decisions, request
from vlfleet.calibrate.cuts import Depth, cut_shape
from vlfleet.calibrate.memory import Start, calibration, check
from vlfleet.plan.flags import Flags
from vlfleet.plan.memory import Request, memory
from vlfleet.plan.memory_calibration import Calibration
from vlfleet.plan.memory_observed import calibrated
from vlfleet.plan.shape import read_shape
from vlfleet.plan.terms import GIB, MIB

SHAPE = read_shape(CONFIGS["Qwen2.5-VL-7B"])
FLAGS = Flags(
    max_model_len=32768, images_per_prompt=1, videos_per_prompt=0, max_pixels=3_211_264, gpu_memory_utilization=0.8
)
V26 = (0, 26, 0)


def cut(depth: Depth, tp: int = 1, known: Calibration = TRUE) -> Start:
    asked = Request(cut_shape(SHAPE, depth), H200, V26, replace(FLAGS, mm_encoder_tp_mode="data"), tp)
    return Start(asked, decided(asked, known))


SHALLOW, DEEP = Depth(4, 8), Depth(12, 16)
"""As where less than the whole 7B fits."""


def test_one_recorded_start_of_the_h200_explains_itself_and_the_other() -> None:
    serve, offline = (Start(request(flags=STARTS[name]), decisions(name)) for name in ("serve", "tp1"))
    known = calibration([serve], None, 28, "here")
    assert (known.source, known.gpu, known.release, known.starts) == ("here", "NVIDIA H200", V26, 1)
    found = check(serve, known)
    assert found is not None
    assert abs(found.off_bytes) < MIB
    other = check(offline, known)
    assert other is not None
    assert abs(other.off_bytes) < 64 * MIB


def test_two_cuts_tell_the_whole_model() -> None:
    known = calibration([cut(SHALLOW), cut(DEEP)], None, 28, "here")
    whole = Request(SHAPE, H200, V26, Flags(max_model_len=8192, images_per_prompt=8, videos_per_prompt=0))
    said, true = memory(whole, known), memory(whole, TRUE)
    assert abs(said.available_kv_bytes - true.available_kv_bytes) < 16 * MIB
    for term in ("CUDA context", "CUDA graphs", "activations", "kernels and libraries"):
        off = said.ranks[0].term(term).bytes - true.ranks[0].term(term).bytes
        assert abs(off) < 32 * MIB, term
    assert known.starts == 2


def test_what_graphs_take_beside_their_layers_is_not_multiplied() -> None:
    """0.3 GiB for all graphs together, however many layers: the deep cut alone would make 0.7 of it."""
    starts = [cut(SHALLOW), cut(DEEP)]
    more = [replace(s, decisions={**s.decisions, "graphs_gib": float(s.decisions["graphs_gib"]) + 0.3}) for s in starts]
    whole = Request(SHAPE, H200, V26, FLAGS)
    true = memory(whole, TRUE).ranks[0].term("CUDA graphs").bytes + 0.3 * GIB
    known = calibration(more, None, 28, "here")
    assert abs(memory(whole, known).ranks[0].term("CUDA graphs").bytes - true) < 32 * MIB
    alone = calibrated(more[1].request, more[1].decisions, Calibration())
    assert memory(whole, alone).ranks[0].term("CUDA graphs").bytes - true > 256 * MIB


def test_two_ranks_tell_what_nccl_takes_and_nothing_else() -> None:
    singles = [cut(SHALLOW), cut(DEEP)]
    alone = calibration(singles, None, 28, "here")
    known = calibration(singles, cut(DEEP, 2), 28, "here")
    assert abs(known.collectives_bytes - TRUE.collectives_bytes) < 12 * MIB
    assert replace(known, collectives_bytes=alone.collectives_bytes, starts=2, session_starts=2) == alone


def test_a_log_of_something_else_changes_nothing() -> None:
    odd = replace(cut(DEEP), decisions={"activation_gib": 90.0, "kv_cache_tokens": 16})
    assert calibration([odd], None, 28, "here").starts == 0
    known = calibration([cut(SHALLOW), odd], None, 28, "here")
    assert known.starts == 1
    assert abs(known.non_torch_bytes - TRUE.non_torch_bytes) < 24 * MIB


@pytest.mark.parametrize("tp", [1, 2])
def test_a_check_compares_with_the_log(tp: int) -> None:
    start = cut(DEEP, tp)
    found = check(start, TRUE)
    assert found is not None
    assert (found.tensor_parallel_size, found.layers) == (tp, 12)
    assert abs(found.off_bytes) < MIB
    wrong = check(start, replace(TRUE, non_torch_bytes=TRUE.non_torch_bytes + 100 * MIB))
    assert wrong is not None
    assert wrong.off_bytes == pytest.approx(-100 * MIB, abs=MIB)
    assert check(replace(start, decisions={}), TRUE) is None
