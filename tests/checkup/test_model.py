"""The checkpoint that --model names: on this disk, or on a hub that is a server of ours."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from vlfleet.checkup.facts.model import ask_hub, find, gather, read_speed
from vlfleet.checkup.known import Known, NotKnown
from vlfleet.checkup.scene import Scene

DEMO = Path(__file__).parents[2] / "src/vlfleet/demo/model"
NAME = "Qwen/Qwen2.5-VL-7B-Instruct"


class Hub(BaseHTTPRequestHandler):
    """Knows one model; one that is gated; one whose page is no JSON."""

    def do_GET(self) -> None:
        pages = {
            NAME: (200, {"siblings": [{"rfilename": "a.safetensors", "size": 10}, {"rfilename": "b.json", "size": 5},
                                      {"rfilename": "old.bin", "size": 1000}], "config": {"model_type": "qwen2_5_vl"}}),
            "x/sizeless": (200, {"siblings": [{"rfilename": "a.safetensors"}]}),
            "x/gated": (403, {}),
            "x/odd": (200, ["no object"]),
        }  # fmt: skip
        code, page = pages.get(self.path.removeprefix("/api/models/").partition("?")[0], (404, {}))
        self.send_response(code)
        self.end_headers()
        self.wfile.write(json.dumps(page).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_nothing_is_looked_at_without_a_model() -> None:
    with pytest.raises(NotKnown) as none:
        gather(Scene(), Known())
    assert none.value.missing.skipped


def test_the_bundled_model() -> None:
    found = gather(Scene(model=str(DEMO)), Known())
    assert (found.problem, found.model_type, found.folder) == ("", "qwen2_5_vl", str(DEMO))
    assert found.bytes == pytest.approx(23.7e6, rel=0.01)
    assert (found.max_pixels, found.pixels_per_token, found.max_model_len) == (200704, 784, 4096)
    assert found.largest_shard_bytes >= found.bytes
    assert found.free_bytes > 0


def test_a_model_that_lacks_a_file(tmp_path: Path) -> None:
    shutil.copytree(DEMO, tmp_path / "m")
    (tmp_path / "m" / "tokenizer.json").unlink()
    found = gather(Scene(model=str(tmp_path / "m")), Known())
    assert found.problem == "m has no tokenizer.json"
    assert found.remedy


def test_a_model_in_the_hubs_cache(tmp_path: Path) -> None:
    cache = tmp_path / f"models--{NAME.replace('/', '--')}"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text("abc")
    scene = Scene(model=NAME, env={"HF_HUB_CACHE": str(tmp_path)})
    assert find(scene) is None  # the download did not come to its config.json
    shutil.copytree(DEMO, cache / "snapshots" / "abc")
    assert find(scene) == cache / "snapshots" / "abc"
    assert gather(scene, Known()).model_type == "qwen2_5_vl"


def test_a_model_on_the_hub(hub: str, tmp_path: Path) -> None:
    env = {"HF_ENDPOINT": hub, "HF_HUB_CACHE": str(tmp_path)}
    found = gather(Scene(model=NAME, env=env), Known())
    assert (found.folder, found.download_bytes, found.model_type, found.hub_error) == ("", 15, "qwen2_5_vl", "")
    assert found.free_bytes > 0
    offline = gather(Scene(model=NAME, env={**env, "HF_HUB_OFFLINE": "1"}), Known())
    assert (offline.offline, offline.download_bytes) == (True, None)


@pytest.mark.parametrize(
    ("name", "error"),
    [("x/gated", "HTTP 403"), ("x/none", "HTTP 404"), ("x/odd", "AttributeError"), ("x/sizeless", "")],
)
def test_what_the_hub_may_say(hub: str, name: str, error: str) -> None:
    size, _, said = ask_hub(hub, name)
    assert (size, said.startswith(error), bool(said)) == (None, True, bool(error))


def test_a_hub_that_is_not_there() -> None:
    assert ask_hub("http://127.0.0.1:9", NAME)[2].startswith("URLError: ")
    assert ask_hub("file:///etc", NAME)[2] == "HF_ENDPOINT file:///etc is no http(s) address"


def test_a_password_in_the_hubs_address_is_not_shown(tmp_path: Path) -> None:
    env = {"HF_ENDPOINT": "http://me:canary@127.0.0.1:9/hub", "HF_HUB_CACHE": str(tmp_path)}
    found = gather(Scene(model=NAME, env=env), Known())
    assert found.endpoint == "http://127.0.0.1:9/hub"
    assert "canary" not in str(found)


def test_what_is_neither_a_folder_nor_a_name() -> None:
    assert gather(Scene(model="/no/such/folder"), Known()).problem == "/no/such/folder does not exist"


def test_reading_past_the_cache(tmp_path: Path) -> None:
    file = tmp_path / "shard"
    with file.open("wb") as out:
        for _ in range(9):
            out.write(os.urandom(8 << 20))
    speed = read_speed(file, seconds=5)
    assert speed is None or 0.01 < speed < 200  # None on tmpfs
    (tmp_path / "small").write_bytes(b"x" * 100)
    assert read_speed(tmp_path / "small") is None
    assert read_speed(tmp_path / "none") is None
