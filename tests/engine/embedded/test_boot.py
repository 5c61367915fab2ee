"""Options, room in memory, and how the fleet reads the engine's log."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from tests.conftest import TinyCheckpoint
from vlfleet.checkpoint import CheckpointInfo, preflight
from vlfleet.engine.embedded import EmbeddedEngine
from vlfleet.engine.embedded.args import parse
from vlfleet.engine.embedded.boot import (
    MAX_MODEL_LEN,
    _end_tokens,
    _generation_config,
    _longest,
    _plan_cache,
    _sampling_defaults,
)
from vlfleet.engine.embedded.fits import check_host_memory
from vlfleet.engine.launch import EngineSpec, Observation, Placement
from vlfleet.errors import ExitCode, VlfleetError


@pytest.fixture(scope="module")
def info(tiny_checkpoint: TinyCheckpoint) -> CheckpointInfo:
    return preflight(tiny_checkpoint("qwen2_5_vl"))


def test_options_are_read() -> None:
    line = "/m --port 9 --dtype bfloat16 --kv-cache-memory-bytes 1.5G --encoder-cache-bytes 64M --max-num-seqs 3"
    line += """ --limit-mm-per-prompt {"image":2,"video":5} --max-memory {"0":"20GiB","cpu":"9GiB"}"""
    args = parse([*line.split(), "--device-map", '{"": 0}'])
    assert (args.model, args.port, args.dtype, args.max_num_seqs) == (Path("/m"), 9, "bfloat16", 3)
    assert (args.kv_cache_memory_bytes, args.encoder_cache_bytes) == (3 << 29, 64 << 20)
    assert (args.images_per_prompt, args.video_frames) == (2, 5)
    assert args.max_memory == {0: "20GiB", "cpu": "9GiB"}
    assert args.device_map == {"": 0}
    assert parse(["/m", "--device-map", "auto"]).device_map == "auto"


@pytest.mark.parametrize(
    "line",
    [
        "",
        "/m --port x",
        "/m --nothing",
        "/m --dtype int8",
        "/m --max-num-seqs 0",
        "/m --max-num-batched-tokens -1",
        "/m --max-model-len 0",
        "/m --limit-mm-per-prompt 5",
        "/m --limit-mm-per-prompt {",
        '/m --limit-mm-per-prompt {"image":0}',
        "/m --max-memory [1]",
        "/m --kv-cache-memory-bytes 5X",
        "/m --kv-cache-memory-bytes -5",
        "/m --encoder-cache-bytes -1",
        "/m --device-map {",
    ],
)
def test_wrong_options_are_a_usage_error(line: str) -> None:
    with pytest.raises(VlfleetError) as caught:
        parse(line.split())
    assert caught.value.exit_code == ExitCode.USAGE


def plan(info: CheckpointInfo, options: str, free_bytes: int = 1 << 30) -> tuple[int, int]:
    args = parse([str(info.path), *options.split()])
    room = _plan_cache(args, _longest(args, info), 1024, free_bytes)
    return room.max_model_len, room.kv_tokens


def test_the_cache_is_sized_to_what_is_needed_or_free(info: CheckpointInfo) -> None:
    assert plan(info, "--max-num-seqs 4") == (4096, 4 * 4096)
    assert plan(info, "", free_bytes=10 << 20) == (4096, 5 << 10)
    assert plan(info, "", free_bytes=4 << 20) == (2048, 2048)
    assert plan(info, "--max-model-len 100 --max-num-seqs 2") == (100, 200)
    assert plan(info, "--kv-cache-memory-bytes 1M") == (1024, 1024)


def test_long_contexts_are_cut_unless_asked_for(info: CheckpointInfo) -> None:
    long = dataclasses.replace(info, config={**info.config, "max_position_embeddings": 128_000})
    assert _longest(parse([str(info.path)]), long) == MAX_MODEL_LEN
    assert _longest(parse([str(info.path), "--max-model-len", "128000"]), long) == 128_000


@pytest.mark.parametrize(
    ("options", "free_bytes", "code", "words"),
    [
        ("--max-model-len 5000", 1 << 30, ExitCode.USAGE, "more than the model's 4,096"),
        ("--max-model-len 4000", 4 << 20, ExitCode.DOES_NOT_FIT, "use --max-model-len 2048"),
        ("", 1000, ExitCode.DOES_NOT_FIT, "holds 0 tokens"),
        ("", 0, ExitCode.DOES_NOT_FIT, "holds 0 tokens"),
        ("--kv-cache-memory-bytes 4K", 1 << 30, ExitCode.DOES_NOT_FIT, "holds 4 tokens"),
    ],
)
def test_no_room_is_said_with_numbers(
    info: CheckpointInfo, options: str, free_bytes: int, code: ExitCode, words: str
) -> None:
    with pytest.raises(VlfleetError) as caught:
        plan(info, options, free_bytes)
    assert caught.value.exit_code == code
    assert words in str(caught.value)


def test_memory_is_checked_before_loading(info: CheckpointInfo, monkeypatch: pytest.MonkeyPatch) -> None:
    def free(count: float) -> None:
        monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=int(count)))

    free(8 << 30)
    check_host_memory(info, "auto", replicas=8)
    free(100 << 20)
    with pytest.raises(VlfleetError, match="GiB are free") as caught:
        check_host_memory(info, "auto")
    assert caught.value.exit_code == ExitCode.DOES_NOT_FIT
    free(2 << 30)
    with pytest.raises(VlfleetError, match="use --replicas 2"):
        check_host_memory(info, "auto", replicas=8)


def test_generation_config_may_be_absent_or_junk(info: CheckpointInfo, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(info.path, tmp_path / "model"))
    file = folder / "generation_config.json"
    for text, defaults, end in [
        ('{"do_sample": false, "temperature": 0.7}', {"temperature": 0.0}, set()),
        ('{"temperature": 0.1, "top_k": 1, "eos_token_id": 3}', {"temperature": 0.1, "top_k": 1}, {3}),
        ('{"temperature": "hot", "eos_token_id": [3, "4", null, -1, 1000000, 5]}', {}, {3, 5}),
        ('{"eos_token_id": null}', {}, set()),
        ("[1]", {}, {info.config["eos_token_id"]}),
        ("{", {}, {info.config["eos_token_id"]}),
    ]:
        file.write_text(text)
        generation = _generation_config(preflight(folder))
        assert _sampling_defaults(generation) == defaults
        if "eos" in text or not generation:
            assert _end_tokens(preflight(folder), generation) == end
    file.unlink()
    assert _generation_config(preflight(folder)) == {}


def test_the_fleet_starts_it_with_its_key_in_the_environment(info: CheckpointInfo) -> None:
    spec = EngineSpec(info.path, "tiny", threads=3, engine_args=("--max-num-seqs", "2"))
    launch = EmbeddedEngine().launch(spec, Placement(), 8123, "secret")
    assert "secret" not in " ".join(launch.argv)
    assert launch.env["VLFLEET_ENGINE_KEY"] == "secret"
    assert launch.env["OMP_NUM_THREADS"] == "3"
    args = parse(launch.argv[3:])
    assert (args.port, args.served_model_name, args.max_num_seqs) == (8123, "tiny", 2)


def test_check_refuses_what_cannot_start(info: CheckpointInfo, tmp_path: Path) -> None:
    engine = EmbeddedEngine()
    engine.prepare(EngineSpec(info.path, "tiny"), 1)
    with pytest.raises(VlfleetError) as caught:
        engine.prepare(EngineSpec(info.path, "tiny", engine_args=("--nothing",)), 1)
    assert caught.value.exit_code == ExitCode.USAGE
    folder = Path(shutil.copytree(info.path, tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text()) | {"quantization_config": {"quant_method": "awq"}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(VlfleetError, match="quantised") as caught:
        engine.prepare(EngineSpec(folder, "tiny"), 1)
    assert caught.value.exit_code == ExitCode.DOES_NOT_FIT


def test_phases_and_failures_are_read_from_the_log() -> None:
    engine = EmbeddedEngine()
    assert engine.observe("phase: warm-up (3.2 s)") == Observation("warm-up")
    assert engine.observe("the phase: load") is None
    assert engine.failure(["phase: import (0.1 s)", "tiny: 1.6 M parameters"]) is None
    for line, cause, remedy, retry in [
        ("port 80 cannot be used: in use | choose another", "port 80 cannot be used: in use", "choose another", True),
        (
            "flash_attention_2 is not supported | see the log",
            "flash_attention_2 is not supported",
            "see the log",
            False,
        ),
        ("a | b | c", "a | b", "c", False),
    ]:
        failure = engine.failure(["noise", f"ERROR: {line}", "more"])
        assert failure is not None
        assert (failure.cause, failure.remedy, failure.retry) == (cause, remedy, retry)
    crash = engine.failure(["Traceback (most recent call last):", '  File "x"', "KeyError: 'a'", "bye"])
    assert crash is not None
    assert (crash.cause, crash.retry) == ("KeyError: 'a'", True)
