"""The folder, its lock and the state file."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlfleet.engine.launch import EngineOptions
from vlfleet.errors import ExitCode, VlfleetError
from vlfleet.fleet.folder import FleetFolder, Lock, locked
from vlfleet.fleet.local import base_url, find
from vlfleet.fleet.processes import EngineProcess, ProcessId
from vlfleet.fleet.replica import Phase, Replica
from vlfleet.fleet.spec import FleetSpec, default_threads
from vlfleet.fleet.state import FleetState, load, save
from vlfleet.home import home


def a_state(port: int = 8000) -> FleetState:
    replica = Replica("r0", 4000, "secret-key", "embedded", pid=11, phase=Phase.READY, ready_at=2.5, error="é\n")
    replica.phases, replica.decisions = {"start": 1.5}, {"version": "0.32.0", "kv_cache_tokens": 8192}
    process = EngineProcess(ProcessId(11, "boot+125"), ProcessId(10, "boot+100"), "/home/fleet/r0/ab")
    spec = FleetSpec(Path("/models/m"), "m", engine_args=("--dtype", "float32"), port=port)
    smaller = replace(spec.engine_spec, options=EngineOptions(max_num_seqs=8))
    healed = {"r0": smaller}
    return FleetState(spec, ProcessId(9, "boot+50"), 3.0, replicas=[replica], processes={"r0": process}, healed=healed)


def test_state_comes_back_as_it_was(folder: FleetFolder) -> None:
    state = a_state()
    save(folder, state.to_json())
    assert load(folder) == state


def test_only_the_owner_reads_it(folder: FleetFolder) -> None:
    save(folder, a_state().to_json())
    assert folder.state.stat().st_mode & 0o777 == 0o600
    assert folder.path.stat().st_mode & 0o777 == 0o700
    assert "secret-key" not in repr(a_state())


def test_no_state_is_no_fleet(folder: FleetFolder) -> None:
    assert load(folder) is None
    assert load(FleetFolder.of("other")) is None
    assert find("other") is None


@given(cut=st.integers(0, 400), junk=st.binary(max_size=8))
def test_damaged_state_is_one_line(tmp_path_factory: pytest.TempPathFactory, cut: int, junk: bytes) -> None:
    folder = FleetFolder(tmp_path_factory.mktemp("fleet"))
    folder.state.write_bytes(a_state().to_json()[:cut] + junk)
    with pytest.raises(ValueError, match="is damaged; it is treated as no fleet") as caught:
        load(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("raw", [b'{"schema":99}', b"[]", b"null", b'{"schema":1}', b'{"schema":1,"spec":7}'])
def test_foreign_state_is_told_and_ignored(folder: FleetFolder, raw: bytes) -> None:
    folder.state.write_bytes(raw)
    told: list[str] = []
    assert find("default", told.append) is None
    assert len(told) == 1


def test_a_reader_never_sees_half_a_file(folder: FleetFolder) -> None:
    save(folder, a_state().to_json())
    stop = time.monotonic() + 0.3
    seen = set()

    def write() -> None:
        port = 0
        while time.monotonic() < stop:
            port = (port + 1) % 50_000
            save(folder, a_state(port).to_json(), durable=False)

    writer = threading.Thread(target=write)
    writer.start()
    while time.monotonic() < stop:
        state = load(folder)
        assert state
        seen.add(state.spec.port)
    writer.join()
    assert len(seen) > 1


def test_lock_is_exclusive_and_dies_with_its_holder(folder: FleetFolder) -> None:
    assert not locked(folder)
    script = "import sys; from vlfleet.fleet.folder import *; from pathlib import Path\n"
    script += "l = Lock(FleetFolder(Path(sys.argv[1]))); print(l.acquire(), flush=True); sys.stdin.read()"
    argv = [sys.executable, "-c", script, str(folder.path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "True\n"
        assert locked(folder)
        assert not Lock(folder).acquire(0)
        holder.kill()
    assert not locked(folder)
    mine = Lock(folder)
    assert mine.acquire()
    mine.release()


def test_lock_is_not_inherited(folder: FleetFolder) -> None:
    lock = Lock(folder)
    assert lock.acquire()
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", "input()"], stdin=subprocess.PIPE, close_fds=False
    ) as child:
        lock.release()
        end = time.monotonic() + 1.0  # the kernel closes what exec closes a moment after Popen has returned
        while locked(folder) and time.monotonic() < end:
            time.sleep(0.01)
        assert not locked(folder)
        child.communicate(b"\n")


def test_where_fleets_live(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("VLFLEET_HOME", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert home() == tmp_path / "vlfleet"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert home() == tmp_path / ".local/state/vlfleet"
    monkeypatch.setenv("VLFLEET_HOME", str(tmp_path / "x"))
    assert FleetFolder.of("a").path == tmp_path / "x" / "a"


@pytest.mark.parametrize("name", ["", "..", "a/b", "-x", "a b", "x" * 65])
def test_names_that_cannot_be_folders(name: str) -> None:
    with pytest.raises(VlfleetError) as caught:
        FleetFolder.of(name)
    assert caught.value.exit_code is ExitCode.USAGE


def test_home_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("VLFLEET_HOME", str(tmp_path / "file"))
    with pytest.raises(VlfleetError, match="cannot write to"):
        FleetFolder.of("default").make()
    assert find("default") is None


def test_base_url_says_what_is_missing(folder: FleetFolder) -> None:
    with pytest.raises(VlfleetError, match="no fleet is running here"):
        base_url()
    me = ProcessId.of(os.getpid())
    assert me
    state = a_state()
    state.supervisor = state.processes["r0"] = me  # type: ignore[assignment]
    state.processes = {"r0": EngineProcess(me, me, "")}
    save(folder, state.to_json())
    with pytest.raises(VlfleetError, match="gateway was killed"):
        base_url()
    lock = Lock(folder)
    assert lock.acquire()
    assert base_url() == "http://127.0.0.1:8000"
    lock.release()


@pytest.mark.parametrize(
    ("host", "url"),
    [("127.0.0.1", "http://127.0.0.1:8000"), ("0.0.0.0", "http://127.0.0.1:8000"), ("::", "http://[::1]:8000"),
     ("::1", "http://[::1]:8000"), ("gpu7", "http://gpu7:8000")],
)  # fmt: skip
def test_url(host: str, url: str) -> None:
    assert FleetSpec(Path("m"), "m", host=host).url == url


@given(st.integers(1, 1000))
def test_threads_share_the_cores(replicas: int) -> None:
    threads = default_threads(replicas)
    assert threads >= 1
    assert threads == 1 or threads * replicas <= (os.cpu_count() or 1)


def test_names_of_media_outlive_a_gateway_and_are_the_owners_alone(folder: FleetFolder) -> None:
    folder.make()
    secret = folder.media_secret()
    assert folder.media_secret() == secret
    path = folder.path / "media.secret"
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(b"cut")
    new = folder.media_secret()
    assert new != secret
    assert folder.media_secret() == new
    assert FleetFolder(folder.path / "nowhere").media_secret() != new, "a folder that cannot be written stops nothing"
