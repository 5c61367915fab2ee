"""S11: keys are random, kept as hashes for their owner alone, compared in constant time, and heeded at once."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from vlfleet.errors import ExitCode, VlfleetError
from vlfleet.gateway.keys import PREFIX, KeyFile, KeyLimits, Keyring, given_key


@pytest.fixture
def file(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "keys.json")


def test_a_key_is_256_random_bits_and_only_its_hash_is_kept(file: KeyFile) -> None:
    made = file.add("alice", KeyLimits(requests_per_minute=3))
    assert len(base64.urlsafe_b64decode(made.removeprefix(PREFIX) + "=")) * 8 == 256
    (kept,) = file.read()
    assert kept.sha256 == hashlib.sha256(made.encode()).hexdigest()
    assert kept.limits == KeyLimits(3, None, None)
    assert made not in file.path.read_text()
    assert made.removeprefix(PREFIX)[:8] not in file.path.read_text()


def test_the_file_is_its_owners_alone(file: KeyFile) -> None:
    for name in ("a", "b"):
        file.add(name)
        assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert [path.name for path in file.path.parent.iterdir()] == ["keys.json"]


def test_every_key_is_another(file: KeyFile) -> None:
    assert len({file.add(f"k{n}") for n in range(50)}) == 50


def test_changes_at_the_same_time_are_all_kept(file: KeyFile) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: file.add(f"k{n}"), range(24)))
    assert {key.name for key in file.read()} == {f"k{n}" for n in range(24)}


@pytest.mark.parametrize("name", ["", "../x", "a b", "x" * 65, "-a"])
def test_names(file: KeyFile, name: str) -> None:
    with pytest.raises(VlfleetError) as caught:
        file.add(name)
    assert caught.value.exit_code is ExitCode.USAGE
    assert not file.path.exists()


def test_a_name_is_taken_once_and_revoked_once(file: KeyFile) -> None:
    file.add("alice")
    with pytest.raises(VlfleetError, match="there is a key 'alice'"):
        file.add("alice")
    file.revoke("alice")
    with pytest.raises(VlfleetError, match="there is no key 'alice'"):
        file.revoke("alice")


def test_a_running_gateway_heeds_the_file_and_never_opens_again(file: KeyFile) -> None:
    ring = Keyring(file)
    assert not ring.required
    alice, bob = file.add("alice"), file.add("bob")
    assert ring.required
    assert ring.find(alice) == file.read()[0]
    file.revoke("alice")
    assert ring.find(alice) is None
    assert ring.find(bob) == file.read()[0]
    file.revoke("bob")
    assert ring.required
    assert Keyring(file).required, "a fleet that is started anew does not open either"
    file.path.unlink()
    assert ring.required
    assert ring.find(bob) is None


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"schema":2,"keys":[]}', b'{"schema":1,"keys":[{"name":"x"}]}'])
def test_a_damaged_file_changes_nothing_and_is_told(file: KeyFile, damage: bytes) -> None:
    said: list[str] = []
    made = file.add("alice")
    ring = Keyring(file, warn=said.append)
    file.path.write_bytes(damage)
    assert ring.find(made)
    assert len(said) == 1
    assert "damaged" in said[0]
    with pytest.raises(VlfleetError, match="damaged"):
        file.add("bob")


def test_all_keys_are_compared_in_constant_time(file: KeyFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """No early end: the time does not tell which key it was, nor how much of a wrong one was right."""
    first = file.add("first")
    for n in range(5):
        file.add(f"k{n}")
    ring, compared = Keyring(file), []
    real = hmac.compare_digest

    def compare(one: Any, other: Any) -> bool:
        compared.append((one, other))
        return real(one, other)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    assert ring.find(first)
    assert ring.find("wrong") is None
    assert len(compared) == 12
    assert all(len(one) == len(other) == 64 for one, other in compared)


def test_a_key_that_was_given(file: KeyFile) -> None:
    text = "n3k" * 10
    ring = Keyring(file, given_key(f"{text}\n", "VLFLEET_API_KEY"))
    assert ring.required
    assert ring.find(text)
    assert ring.find(text + "x") is None


@pytest.mark.parametrize("text", ["", "short", "x" * 21, "with a space in the middle", "ä" * 30, "a" * 30 + "\nb"])
def test_a_key_that_is_none(text: str) -> None:
    with pytest.raises(VlfleetError) as caught:
        given_key(text, "VLFLEET_API_KEY")
    assert caught.value.exit_code is ExitCode.USAGE
    assert not text.strip() or text.strip() not in str(caught.value)


def test_no_word_of_a_key_is_in_what_python_shows_of_it(file: KeyFile) -> None:
    made = file.add("alice")
    ring = Keyring(file, given_key(made, "VLFLEET_API_KEY"))
    assert made not in repr(ring)
    assert made not in json.dumps([vars(key) for key in file.read()], default=repr)
