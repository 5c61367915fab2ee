"""The state file outlives its writer, wherever that is killed, and what was once written is not lost (R12)."""

from __future__ import annotations

import os
import random
import resource
import signal
import struct
import time

import pytest

from tests.fleet.test_state import a_state
from vlfleet.fleet.folder import FleetFolder
from vlfleet.fleet.state import load, save

KILLS = 100


def write_on(folder: FleetFolder, first: int, acknowledge: int) -> None:
    """Saves one state after the other, and names each that is safe."""
    port = first
    while True:
        port += 1
        save(folder, a_state(port).to_json(), durable=port % 2 == 0)
        os.write(acknowledge, struct.pack("<I", port))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_kill_9_at_100_random_points(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = FleetFolder(tmp_path_factory.mktemp("fleet"))
    chance, last = random.Random(7), 0
    for _ in range(KILLS):
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                write_on(folder, last, write)
            finally:
                os._exit(1)
        os.close(write)
        begun = os.read(read, 4)  # a busy machine may take longer than these 20 ms to let it begin
        time.sleep(chance.uniform(0.0, 0.02))
        os.kill(pid, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
        with os.fdopen(read, "rb") as pipe:
            safe = [each[0] for each in struct.iter_unpack("<I", begun + pipe.read())]
        state = load(folder)
        assert state or not (last or safe)
        if state:
            assert state == a_state(state.spec.port)
            assert state.spec.port >= max(safe, default=last)
            last = state.spec.port
    assert last > KILLS  # it was killed while it wrote, not before


def test_a_full_disk_leaves_the_last_state(folder: FleetFolder) -> None:
    save(folder, a_state(1).to_json())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for room in (0, 1, 500):
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
        try:
            with pytest.raises(OSError, match="File too large"):
                save(folder, a_state(2).to_json())
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert load(folder) == a_state(1)
    save(folder, a_state(3).to_json())
    assert load(folder) == a_state(3)
