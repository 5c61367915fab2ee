"""Folders, libraries and ports of this machine."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlfleet.checkup.facts import disk, environment, network
from vlfleet.checkup.facts.disk import hub_folder, kind_of, look, read_mounts
from vlfleet.checkup.facts.environment import Library, libraries_in
from vlfleet.checkup.known import Known
from vlfleet.checkup.scene import Scene

MOUNTS = """\
/dev/vda / ext4 rw 0 0
server:/share /mnt nfs4 rw 0 0
tmpfs /mnt/fast tmpfs rw 0 0
bucket /mnt/my\\040bucket fuse.gcsfuse rw 0 0
overlay / overlay rw 0 0
"""


def test_the_file_system_is_that_of_the_longest_mount_point() -> None:
    mounts = read_mounts(MOUNTS.splitlines())
    kinds = {
        path: kind_of(Path(path), mounts) for path in ("/x", "/mnt/x", "/mnt/fast", "/mnt/faster", "/mnt/my bucket/m")
    }
    assert kinds == {"/x": "overlay", "/mnt/x": "nfs4", "/mnt/fast": "tmpfs", "/mnt/faster": "nfs4",
                     "/mnt/my bucket/m": "fuse.gcsfuse"}  # fmt: skip
    assert kind_of(Path("/x"), []) == ""


def test_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    found = look("x", tmp_path / "a" / "b", [(str(tmp_path), "nfs4")])
    assert (found.exists, found.writable, found.kind, found.network) == (False, True, "nfs4", True)
    assert 0 < found.free_bytes < found.total_bytes


@pytest.mark.parametrize(
    ("env", "folder"),
    [
        ({"HF_HUB_CACHE": "/a", "HF_HOME": "/b"}, "/a"),
        ({"HF_HOME": "/b"}, "/b/hub"),
        ({"XDG_CACHE_HOME": "/c"}, "/c/huggingface/hub"),
        ({}, "~/.cache/huggingface/hub"),
    ],
)
def test_where_the_hub_keeps_its_files(env: dict[str, str], folder: str) -> None:
    assert hub_folder(Scene(env=env)) == Path(folder).expanduser()


def test_the_folders_of_this_machine(tmp_path: Path) -> None:
    env = {
        "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "m"),
        "TMPDIR": str(tmp_path),
        "VLLM_CACHE_ROOT": str(tmp_path / "c"),
    }
    found = disk.gather(Scene(env=env), Known())
    assert [folder.path for folder in found.all[2:]] == [str(tmp_path), str(tmp_path / "m"), str(tmp_path / "c")]
    assert all(folder.kind for folder in found.all)
    assert disk.gather(Scene(env={"TMPDIR": str(tmp_path)}), Known()).metrics.path == str(tmp_path)


def test_libraries_that_come_first(tmp_path: Path) -> None:
    for name in ("libcublas.so.12.8.4", "libcudnn.so.9", "libcudart.so", "libssl.so.3", "libnccl.so.2", "x"):
        (tmp_path / name).touch()
    found = libraries_in(tmp_path)
    assert [(library.name, library.version, library.major) for library in found] == [
        ("cublas", "12.8.4", 12),
        ("cudart", "", None),
        ("cudnn", "9", 9),
        ("nccl", "2", 2),
    ]
    scene = Scene(env={"LD_LIBRARY_PATH": f":{tmp_path}:/no/such"})
    assert environment.gather(scene, Known()).libraries == tuple(found)
    assert environment.gather(Scene(env={}), Known()).libraries == ()


@given(st.text(max_size=40))
def test_no_name_of_a_file_makes_it_fail(name: str) -> None:
    match = environment._LIBRARY.match(name)
    assert match is None or Library(match[1], match[2], name).major is None or name.startswith("lib")


def test_loopback_of_this_machine() -> None:
    assert network.loopback() == ""
    assert network.loopback("203.0.113.1") != ""  # no address of ours


def test_a_port_that_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setattr(network, "GATEWAY_PORT", port)
        found = network.gather(Scene(), Known())
        assert (found.taken, "python" in found.holder or "pytest" in found.holder) == (True, True)
    assert network.gather(Scene(), Known()).taken is False
    assert found.ephemeral is None or found.ephemeral[0] < found.ephemeral[1]
    assert "127.0.0.1" in found.addresses
