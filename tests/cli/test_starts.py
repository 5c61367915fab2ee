"""How `vlfleet status` shows the starts of replicas."""

from __future__ import annotations

from typing import Any

from vlfleet.cli import starts
from vlfleet.cli.status import table

DECIDED = {
    "version": "0.32.0",
    "kv_cache_tokens": 2019056,
    "max_concurrency": 246.5,
    "max_model_len": 8192,
    "encoder_budget_tokens": 16384,
    "graphs_gib": 0.4,
}
SAID = "2,019,056 KV tokens, 246.5 requests of 8,192 tokens, encoder budget 16,384 tokens"


def replica(
    name: str, phases: dict[str, float], decisions: dict[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    return {"name": name, "phases": phases, "decisions": decisions or {}, "adjusted": "", "gpus": [], **more}


def test_nothing_known_is_nothing_shown() -> None:
    assert starts.describe([]) == []
    assert starts.describe([replica("r0", {})]) == []


def test_columns_line_up_and_equal_lines_are_one() -> None:
    shown = starts.describe(
        [
            replica("r0", {"start": 14.2, "load": 5.12, "compile": 19.4, "warm-up": 0.4}, DECIDED),
            replica("r1", {"start": 9.0, "load": 121.7, "warm-up": 0.4}, DECIDED),
            replica("r2", {"start": 9.04, "load": 121.9, "warm-up": 0.36}, DECIDED),
        ]
    )
    assert shown == [
        "r0     start 14 s   load 5.1 s  compile 19 s  warm-up 0.4 s",
        "r1-r2  start 9.0 s  load 122 s                warm-up 0.4 s",
        f"r0-r2  {SAID}",
    ]


def test_what_was_given_up_is_said_of_whom() -> None:
    healed = replica("r1", {"load": 1.0}, {**DECIDED, "encoder_budget_tokens": 4096}, adjusted="max_num_seqs 8 of 32")
    shown = starts.describe([replica("r0", {"load": 1.0}, DECIDED), healed])
    assert shown == [
        "r0-r1  load 1.0 s",
        f"r0     {SAID}",
        f"r1     {SAID.replace('16,384', '4,096')}",
        "r1     adjusted to start: max_num_seqs 8 of 32",
    ]


def test_unknown_decisions_are_for_json_only() -> None:
    assert starts.describe([replica("r0", {}, {"version": "0.32.0", "something": 7})]) == []


def row(name: str, gpus: list[int]) -> dict[str, Any]:
    counts = {"restarts": 0, "in_flight": 2, "served": 10}
    about = {"phase": "ready", "detail": "", "pid": 4321, "port": 40001, "up_seconds": 12.0, "error": ""}
    counts["cordoned"] = False
    return replica(name, {}, gpus=gpus) | counts | about


def test_gpus_have_a_column_where_there_are_any() -> None:
    head = {"served_model_name": "m", "url": "http://127.0.0.1:8000/v1", "status": "serving", "ready": 2}
    lines = table({**head, "replicas": [row("r0", [0, 1]), row("r1", [])]}).splitlines()
    assert lines[2] == "REPLICA  PHASE  GPU  PID   PORT   UP    RESTARTS  IN FLIGHT  SERVED  LAST ERROR"
    assert lines[3] == "r0       ready  0,1  4321  40001  12 s  0         2          10      -"
    assert lines[4] == "r1       ready  -    4321  40001  12 s  0         2          10      -"
    lines = table({**head, "replicas": [row("r0", [])]}).splitlines()
    assert lines[2:] == [
        "REPLICA  PHASE  PID   PORT   UP    RESTARTS  IN FLIGHT  SERVED  LAST ERROR",
        "r0       ready  4321  40001  12 s  0         2          10      -",
    ]
