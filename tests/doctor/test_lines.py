"""What stands before a message is parted from it, in every form in which engines of six years have written it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlfleet.doctor.lines import Line, clean, parse

FORMS = {
    # vLLM 0.9 to 0.32
    "(EngineCore pid=123) ERROR 11-21 02:36:07 [core.py:1100] EngineCore failed to start.": (
        ("EngineCore", "ERROR", "core.py", "EngineCore failed to start.")
    ),
    "(Worker_TP1_EP1 pid=7) INFO 11-21 02:36:07 [gpu_model_runner.py:5000] Model loading took 1.0 GiB": (
        ("Worker_TP1_EP1", "INFO", "gpu_model_runner.py", "Model loading took 1.0 GiB")
    ),
    # 0.10 and 0.11, whose path is not cut to a name
    "(Worker_TP0 pid=2247699) ERROR 10-09 14:10:58 [v1/executor/multiproc_executor.py:597] boom": (
        ("Worker_TP0", "ERROR", "multiproc_executor.py", "boom")
    ),
    "(VllmWorker rank=1 pid=88) ERROR 04-06 20:46:48 [multiproc_executor.py:238] boom": (
        ("VllmWorker rank=1", "ERROR", "multiproc_executor.py", "boom")
    ),
    # before 0.8
    "ERROR 02-13 14:18:12 engine.py:389] ValueError: boom": ("", "ERROR", "engine.py", "ValueError: boom"),
    "(VllmWorkerProcess pid=42) ERROR 02-22 00:31:14 multiproc_worker_utils.py:242] boom": (
        ("VllmWorkerProcess", "ERROR", "multiproc_worker_utils.py", "boom")
    ),
    # Ray, and the actors of data parallelism
    "(RayWorkerWrapper pid=4009, ip=10.0.0.2) ValueError: boom": ("RayWorkerWrapper", "", "", "ValueError: boom"),
    "(APIServer pid=1) (DPEngineCoreActor pid=2) ValueError: boom": ("DPEngineCoreActor", "", "", "ValueError: boom"),
    "(APIServer pid=1) (DPEngineCoreActor pid=2) ERROR 11-21 02:36:07 [core.py:1] boom": (
        ("DPEngineCoreActor", "ERROR", "core.py", "boom")
    ),
    # torch
    "[rank0]: RuntimeError: boom": ("rank0", "", "", "RuntimeError: boom"),
    "[rank2]:[E1001 16:06:04.537131842 ProcessGroupNCCL.cpp:607] boom": (
        ("rank2", "", "", "[E1001 16:06:04.537131842 ProcessGroupNCCL.cpp:607] boom")
    ),
    # printed, not logged
    '(APIServer pid=93)   File "/usr/local/bin/vllm", line 10, in <module>': (
        ("APIServer", "", "", '  File "/usr/local/bin/vllm", line 10, in <module>')
    ),
    "RuntimeError: boom": ("", "", "", "RuntimeError: boom"),
    # uvicorn
    '(APIServer pid=1) INFO:     127.0.0.1:5000 - "GET /health HTTP/1.1" 200 OK': (
        ("APIServer", "INFO", "", '127.0.0.1:5000 - "GET /health HTTP/1.1" 200 OK')
    ),
    "ERROR:    Exception in ASGI application": ("", "ERROR", "", "Exception in ASGI application"),
    # the embedded engine says what is wrong itself
    "ERROR: there is no folder x | give a checkpoint": ("", "", "", "ERROR: there is no folder x | give a checkpoint"),
    # a progress bar that did not end its line
    "Loading:  50%|█████     | 1/2 [00:01<00:01](Worker_TP0 pid=9) ERROR 11-21 02:36:07 [x.py:1] boom": (
        ("Worker_TP0", "ERROR", "x.py", "boom")
    ),
    "": ("", "", "", ""),
}
OUTER = [
    "r0 | ",
    "vllm-1     | ",
    "2025-04-06T20:46:48.123456789Z ",
    "2026-04-10T08:53:23.883661459+08:00 stderr F ",
    "[2025-04-06 20:46:48] ",
    "> ",
    "> > ",
]


@pytest.mark.parametrize(("raw", "parts"), FORMS.items())
def test_the_parts_of_a_line(raw: str, parts: tuple[str, str, str, str]) -> None:
    assert parse(5, raw) == Line(5, *parts)


@pytest.mark.parametrize("outer", OUTER)
@pytest.mark.parametrize("raw", [raw for raw in FORMS if not raw.startswith("Loading")])
def test_what_others_put_before_it(outer: str, raw: str) -> None:
    assert parse(1, outer + raw) == parse(1, raw)


@pytest.mark.parametrize(
    "text", ["2025 was a good year", "(see pid 7)", '  File "a.py", line 3, in f', "[rank] of all", "  a | b", "->x"]
)
def test_what_only_looks_like_it(text: str) -> None:
    assert parse(1, text) == Line(1, "", "", "", text)


def test_colours_and_progress_bars() -> None:
    coloured = (
        "\x1b[1;36m(EngineCore pid=9)\x1b[0;0m \x1b[31mERROR\x1b[0m 11-21 02:36:07 [core.py:1] \x1b]0;x\x07boom\r\n"
    )
    assert parse(1, coloured) == Line(1, "EngineCore", "ERROR", "core.py", "]0;xboom")
    assert clean("  1%|\r 50%|\r100%| done\r\n") == "100%| done"
    assert clean("a\x00b\x08c\x7f") == "abc"


def test_a_very_long_line_is_cut() -> None:
    assert len(parse(1, "x" * 100_000).text) == 16 << 10


@given(st.text())
def test_every_text_has_parts(text: str) -> None:
    line = parse(1, text)
    assert "\x1b" not in line.text
    assert line.level in ("", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
