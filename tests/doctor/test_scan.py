"""The first cause wins: over what follows it, what was printed before it, and who else prints at the same time."""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.doctor.logs import FIXTURES, HEALTHY, lines, primary, rule_of
from vlfleet.doctor import RULES, FailureKind, Role, Scan, diagnose, examine, first_error

SECONDARY = """\
(EngineCore pid=7) ERROR 11-21 02:36:07 [core.py:1510] EngineCore failed to start.
(EngineCore pid=7) ERROR 11-21 02:36:07 [core.py:1510] Exception: WorkerProc initialization failed due to an \
exception in a background process. See stack trace for root cause.
(APIServer pid=6) ERROR 11-21 02:36:07 [async_llm.py:906] AsyncLLM output_handler failed.
(EngineCore pid=7) ERROR 11-21 02:36:07 [multiproc_executor.py:123] Worker proc VllmWorker-1 died unexpectedly, \
shutting down executor.
Traceback (most recent call last):
  File "/opt/vllm/lib/python3.11/site-packages/vllm/v1/engine/utils.py", line 1431, in wait_for_engine_startup
    raise RuntimeError(
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
""".splitlines()
LOGGED = [file for file in FIXTURES if RULES[[r.name for r in RULES].index(rule_of(file))].role is not Role.SYMPTOM]
KEY_ERROR = """\
Traceback (most recent call last):
  File "a.py", line 1, in first
    table[key]
KeyError: 'a'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "b.py", line 2, in second
    raise RuntimeError("nobody knows this one")
RuntimeError: nobody knows this one
""".splitlines()


@pytest.mark.parametrize("file", LOGGED, ids=lambda file: file.stem)
def test_consequences_after_it_change_nothing(file: Path) -> None:
    before, after = examine(lines(file)), examine([*lines(file), *SECONDARY])
    if before.diagnosis and before.diagnosis.fatal:
        assert after.diagnosis is not None
        assert (after.diagnosis.rule, after.diagnosis.line_number) == (
            before.diagnosis.rule,
            before.diagnosis.line_number,
        )
    else:  # a refused request or a note explains no death
        assert after.diagnosis is not None
        assert after.diagnosis.rule in ("engine-died", "unknown")


@pytest.mark.parametrize("file", LOGGED, ids=lambda file: file.stem)
def test_a_process_name_before_every_line_changes_nothing(file: Path) -> None:
    plain, named = examine(lines(file)), examine([f"(APIServer pid=1) {line}" for line in lines(file)])
    assert primary(named) == primary(plain)
    if plain.diagnosis and named.diagnosis:
        assert named.diagnosis.line == plain.diagnosis.line
        assert named.diagnosis.numbers == plain.diagnosis.numbers
        assert named.diagnosis.process in (plain.diagnosis.process, "APIServer")


@pytest.mark.parametrize("before", ["vllm-1  | ", "r0 | ", "2026-04-10T08:53:23.883661459+08:00 stderr F ", "> "])
def test_what_a_container_puts_before_every_line_changes_nothing(before: str) -> None:
    for name in ("vision-heads-indivisible", "kv-cache-too-small-for-length", "out-of-memory-sampler", "port-in-use"):
        file = next(file for file in FIXTURES if file.stem == name)
        plain, prefixed = diagnose(lines(file)), diagnose([before + line for line in lines(file)])
        assert plain is not None
        assert prefixed is not None
        assert (prefixed.rule, prefixed.line, prefixed.process) == (plain.rule, plain.line, plain.process)


def test_the_worker_is_named_that_failed_first() -> None:
    file = next(file for file in FIXTURES if file.stem == "vision-heads-indivisible")
    found = diagnose(lines(file))
    assert found is not None
    assert found.process == "Worker_TP1"
    assert found.also == ("engine-died",)


def test_a_later_start_changes_nothing() -> None:
    """A supervisor starts it again, and the port is taken meanwhile."""
    first = next(file for file in FIXTURES if file.stem == "attention-heads-indivisible")
    second = next(file for file in FIXTURES if file.stem == "port-in-use")
    found = diagnose([*lines(first), *lines(second)])
    assert found is not None
    assert found.rule == "attention-heads-indivisible"
    assert found.also == ("port-in-use",)


def test_a_general_cause_gives_way_to_what_names_it_exactly_but_only_in_its_own_process() -> None:
    memory = (
        "(Worker_TP1 pid=3) ERROR 11-21 02:36:07 [x.py:1] torch.OutOfMemoryError: CUDA out of memory. Tried to"
        " allocate 1 GiB."
    )
    sampler = (
        "({} pid=4) ERROR 11-21 02:36:07 [x.py:1] RuntimeError: CUDA out of memory occurred when warming up"
        " sampler with 8 dummy requests."
    )
    for process, rule in (("Worker_TP1", "out-of-memory-sampler"), ("Worker_TP0", "out-of-memory")):
        found = diagnose([memory, sampler.format(process)])
        assert found is not None
        assert found.rule == rule


def test_information_and_warnings_explain_no_death() -> None:
    text = "ValueError: No available memory for the cache blocks."
    for level in ("INFO", "WARNING", "DEBUG"):
        assert diagnose([f"(EngineCore pid=1) {level} 11-21 02:36:07 [x.py:1] {text}"]) is None
    assert diagnose([f"(EngineCore pid=1) ERROR 11-21 02:36:07 [x.py:1] {text}"]) is not None


def test_a_refused_request_is_shown_but_kills_nobody() -> None:
    refused = "ERROR 01-23 07:08:25 serving_chat.py:181] ValueError: At most 1 image(s) may be provided in one request."
    alone, dead = diagnose([refused]), diagnose([refused, *SECONDARY])
    assert alone is not None
    assert (alone.rule, alone.kind, alone.fatal) == ("too-many-media", FailureKind.REQUEST, False)
    assert dead is not None
    assert (dead.rule, dead.fatal) == ("engine-died", True)


def test_the_same_words_kill_at_start_and_refuse_in_a_request() -> None:
    words = "ValueError: Mismatch in `image` token count between text and `input_ids`. Got ids=[4091] and text=[9000]."
    start = diagnose([f"(EngineCore pid=1) ERROR 03-10 13:23:29 [core.py:1] {words}"])
    asked = diagnose([f"(APIServer pid=1) ERROR 03-10 13:23:29 [serving.py:311] {words}"])
    assert start is not None
    assert asked is not None
    assert (start.fatal, asked.fatal) == (True, False)
    assert start.rule == asked.rule == "processor-truncates"


def test_an_unknown_failure_shows_the_first_error_line_and_says_so() -> None:
    found = diagnose([*KEY_ERROR, *SECONDARY])
    assert found is not None
    assert not found.known
    assert (found.rule, found.kind, found.retry, found.fatal) == ("unknown", FailureKind.UNKNOWN, True, True)
    assert (found.line, found.line_number) == ("KeyError: 'a'", 4)
    assert "no rule knows" in found.cause
    assert "line 4" in found.remedy
    assert first_error(KEY_ERROR) == "KeyError: 'a'"


def test_of_a_validation_error_the_line_is_shown_that_says_something() -> None:
    lines = [
        "pydantic_core._pydantic_core.ValidationError: 1 validation error for VllmConfig",
        "  Value error, the moon is not full. [type=value_error, input_value=ArgsKwargs((), {})]",
    ]
    found = diagnose(lines)
    assert found is not None
    assert found.line.startswith("Value error, the moon is not full.")
    assert found.line_number == 2


def test_usage_errors_are_failures() -> None:
    found = diagnose(["usage: vllm serve [model_tag] [options]", "vllm serve: error: the moon is not full"])
    assert found is not None
    assert (found.known, found.line) == (False, "vllm serve: error: the moon is not full")


def test_consequences_alone_are_said_to_be_consequences() -> None:
    found = diagnose(SECONDARY)
    assert found is not None
    assert found.rule == "engine-died"
    assert found.retry


def test_what_ends_in_order_has_not_failed() -> None:
    told = "(APIServer pid=6) INFO 11-21 02:36:07 [launcher.py:254] [shutdown] API server: shutdown triggered"
    started = "(APIServer pid=6) INFO 11-21 02:36:09 [api_utils.py:286] non-default args: {'port': 8000}"
    assert diagnose([told, *SECONDARY]) is None
    assert diagnose([*SECONDARY, told]) is not None
    assert diagnose([told, started, *SECONDARY]) is not None
    assert diagnose(["Traceback (most recent call last):", '  File "x.py", line 1, in f', "KeyboardInterrupt"]) is None


def test_what_nobody_has_to_care_for_is_no_failure() -> None:
    trace = [
        "Traceback (most recent call last):",
        '  File "x.py", line 1, in f',
        "ValueError: I/O operation on closed file",
    ]
    assert diagnose(["Exception ignored in: <function f at 0x7f>", *trace]) is None
    assert diagnose(["ERROR:    Exception in ASGI application", *trace]) is None
    assert diagnose(trace) is not None


def test_tracebacks_of_two_processes_through_each_other() -> None:
    one = [
        "(Worker_TP0 pid=1) ERROR 11-21 02:36:07 [x.py:1] Traceback (most recent call last):",
        '(Worker_TP0 pid=1) ERROR 11-21 02:36:07 [x.py:1]   File "vllm/x.py", line 1, in load_model',
        "(Worker_TP0 pid=1) ERROR 11-21 02:36:07 [x.py:1] torch.OutOfMemoryError: CUDA out of memory. Tried to"
        " allocate 1 GiB.",
    ]
    two = [line.replace("TP0", "TP1").replace("load_model", "profile_run") for line in one]
    for order, rule in ((one, two), "out-of-memory-loading"), ((two, one), "out-of-memory-profiling"):
        mixed = [line for pair in zip(*order, strict=True) for line in pair]
        found = diagnose(mixed)
        assert found is not None
        assert found.rule == rule


def test_a_progress_bar_before_the_line() -> None:
    bar = (
        "Processed prompts:   6%|█▋   | 29/512 [00:08<02:31, 3.19it/s](EngineCore_DP0 pid=1) ERROR 10-25 11:17:27"
        " [core.py:720] "
    )
    found = diagnose([bar + "ValueError: No available memory for the cache blocks."])
    assert found is not None
    assert (found.rule, found.process) == ("no-memory-for-kv-cache", "EngineCore_DP0")
    assert found.line.startswith("ValueError: No available")


@pytest.mark.parametrize(
    ("line", "version"),
    [
        ("INFO 11-21 02:09:44 [api_utils.py:345]  ▄▄ ▄█ █     █     █ ▀▄▀ █  version 0.26.0", "0.26.0"),
        (
            "(EngineCore pid=825) INFO 11-21 02:03:30 [core.py:116] Initializing a V1 LLM engine (v0.9.1) with"
            " config: x",
            "0.9.1",
        ),
        ("INFO 04-19 17:25:10 api_server.py:149] vLLM API server version 0.4.0.post1", "0.4.0"),
        (
            "INFO 03-04 06:04:04 [llm_engine.py:235] Initializing a V0 LLM engine (v0.1.dev4927+geda5043) with config",
            "",
        ),
        ("INFO 03-04 06:04:04 [x.py:235] transformers version 5.17.0", ""),
    ],
)
def test_the_version_is_read_from_the_log(line: str, version: str) -> None:
    assert examine([line]).version == version


@pytest.mark.parametrize(
    ("version", "fires"), [("0.8.5", True), ("0.9.0", True), ("0.9.1", False), ("0.26.0", False), ("", True)]
)
def test_a_rule_fires_only_in_its_versions(version: str, fires: bool) -> None:
    line = "KeyError: 'visual.patch_embed.proj.weight'"
    found = diagnose([line], version=version or None)
    assert found is not None
    assert (found.rule == "weight-names-moved") == fires
    said = diagnose([line, f"INFO 11-21 02:09:44 [x.py:1] vLLM API server version {version}"]) if version else found
    assert said is not None
    assert (said.rule == "weight-names-moved") == fires


def test_symptoms_are_for_prose_only() -> None:
    words = "the answer is only exclamation marks"
    assert diagnose([words]) is not None
    assert diagnose(["(APIServer pid=1) INFO 11-21 02:09:44 [x.py:1] started", words]) is None
    assert diagnose([*["x"] * 50, words]) is None
    assert diagnose([words, *["x"] * 50]) is None
    assert diagnose([words, "(APIServer pid=1) INFO 11-21 02:09:44 [x.py:1] started"]) is None


def test_a_hang_is_told_from_a_compilation_by_how_long_it_lasts() -> None:
    line = next(lines(file) for file in FIXTURES if file.stem == "rank-silent")[0]
    assert diagnose([line] * 4) is None
    found = diagnose([line] * 5)
    assert found is not None
    assert found.rule == "rank-silent"


def test_terminal_sequences_are_not_passed_on() -> None:
    found = diagnose(
        [
            "\x1b[31mERROR\x1b[0m \x1b[90m01-28 15:59:42\x1b[0m \x1b[90m[core.py:935]\x1b[0m ValueError:"
            " \x1b]0;x\x07no\x1b[2J"
        ]
    )
    assert found is None or "\x1b" not in found.line + found.cause


def test_nothing_shows_nothing() -> None:
    assert diagnose([]) is None
    assert first_error([]) is None
    assert examine(["", " ", "\n"]).line_count == 3


@given(st.lists(st.text(max_size=300), max_size=30))
def test_no_text_makes_it_fail(texts: list[str]) -> None:
    report = examine(texts)
    assert report.line_count == len(texts)


_PIECES = [line for file in FIXTURES for line in lines(file)[-12:]]


@given(st.lists(st.sampled_from(_PIECES), max_size=40), st.integers(0, 30))
def test_no_mixture_of_real_lines_makes_it_fail(pieces: list[str], cut: int) -> None:
    found = diagnose([piece[cut:] for piece in pieces])
    assert found is None or (found.cause and found.remedy and found.line_number)


@given(st.integers(0, 40))
def test_a_log_cut_off_in_front_still_names_the_cause(count: int) -> None:
    """As the supervisor sees it: the last lines only, from the middle of a traceback on."""
    file = next(file for file in FIXTURES if file.stem == "kv-cache-too-small-for-length")
    found = diagnose(lines(file)[count:])
    assert found is not None
    assert found.rule == "kv-cache-too-small-for-length"


def test_a_log_is_never_held_whole() -> None:
    """20,000 lines of 1 KB are 20 MB; a few hundred KB stay, the last frames of a traceback."""
    frame = '(Worker_TP0 pid=1) ERROR 11-21 02:36:07 [x.py:1]   File "x.py", line {}, in f' + "x" * 1000
    tracemalloc.start()
    examine(frame.format(number) for number in range(20_000))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 2_000_000


@pytest.mark.parametrize(
    "piece",
    [
        "a",
        " ",
        "1,111",
        "<model",
        "At most ",
        "GPU 0 has a total capacity of 1 GiB of which x is free. Process x memory in use. ",
        "gpu idle cpu ",
        "box image second ",
        "video hangs ",
        "vllm transformers ",
        "repeat loop ",
        "stuck starting ",
    ],
)
def test_what_is_made_to_keep_it_busy_does_not(piece: str) -> None:
    """Somebody else's text stands in a log: 40 lines of 20,000 characters take up to 1.2 s here."""
    line = piece * (20_000 // len(piece))
    assert _seconds([line] * 10) < 3


def test_it_is_quick() -> None:
    """1,000 lines take about 8 ms here; ten times that is no neighbour's fault."""
    log = lines(max(HEALTHY, key=lambda file: file.stat().st_size))
    log = (log * (1 + 1000 // len(log)))[:1000]
    best = min(_seconds(log) for _ in range(5))
    assert best < 0.08


def _seconds(log: list[str]) -> float:
    start = time.perf_counter()
    scan = Scan()
    for line in log:
        scan.feed(line)
    scan.report()
    return time.perf_counter() - start
