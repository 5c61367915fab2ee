"""The store: found by its tenant alone, bounded by bytes and age, fair when it is full."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from vlfleet.media import Medium, Store, Stored
from vlfleet.media.store import NAMES_A_MEDIUM, OVERHEAD_BYTES


def bytes_for(media: int, size: int = 10) -> int:
    return media * (size + OVERHEAD_BYTES)


def stored(name: str, size: int = 10) -> Stored:
    return Stored(name, Medium(b"", "image", "PNG", size, 2, 2, 1, 4), b"x" * size)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_only_its_tenant_finds_it() -> None:
    store = Store()
    assert store.put("a", stored("file-1"))
    assert store.get("a", "file-1") == store.files("a")[0]
    assert store.get("b", "file-1") is None
    assert not store.remove("b", "file-1")
    assert store.files("b") == []
    assert store.remove("a", "file-1")
    assert (store.get("a", "file-1"), store.held_bytes, store.media) == (None, 0, 0)


def test_the_least_recently_used_goes_first() -> None:
    store = Store(max_bytes=bytes_for(3))
    for name in "123":
        store.put("a", stored(name))
    store.get("a", "1")
    store.put("a", stored("4"))
    assert [each.file_id for each in store.files("a")] == ["3", "1", "4"]


def test_what_cannot_fit_is_not_taken() -> None:
    store = Store(max_bytes=bytes_for(1, 30))
    store.put("a", stored("1"))
    assert not store.put("a", stored("2", 31))
    assert store.get("a", "1")


def test_a_tenant_that_sends_much_pushes_out_its_own() -> None:
    store = Store(max_bytes=bytes_for(10))
    store.put("modest", stored("1"))
    for n in range(50):
        store.put("greedy", stored(str(n)))
    assert store.get("modest", "1")
    assert store.held_bytes == bytes_for(10)
    store.put("late", stored("1", 4000))
    assert store.get("late", "1")


def test_age_counts_from_the_last_use() -> None:
    clock = Clock()
    store = Store(max_seconds=10, clock=clock)
    store.put("a", stored("1"))
    store.put("a", stored("2"))
    clock.now = 8
    store.get("a", "1")
    clock.now = 12
    assert store.get("a", "1")
    assert store.get("a", "2") is None
    clock.now = 40
    store.expire()
    assert (store.media, store.held_bytes) == (0, 0)


def test_a_clients_own_names() -> None:
    store = Store()
    store.put("a", stored("1"))
    store.put("a", stored("2"))
    store.put("b", stored("3"))
    store.name("a", "cat", "1")
    assert store.named("b", "cat") is None
    store.name("a", "cat", "2")
    found = store.named("a", "cat")
    assert found is not None
    assert found.file_id == "2"
    store.name("a", "dog", "3")  # another tenant's
    assert store.named("a", "dog") is None
    store.remove("a", "2")
    assert store.named("a", "cat") is None


def test_names_are_bounded() -> None:
    store = Store()
    store.put("a", stored("1"))
    for n in range(1000):
        store.name("a", str(n), "1")
    assert [bool(store.named("a", str(n))) for n in range(1000)] == [False] * (1000 - NAMES_A_MEDIUM) + [True] * 8
    store.name("a", "x" * 300, "1")
    assert store.named("a", "x" * 300) is None


def test_data_is_a_url() -> None:
    assert b"".join(stored("1", 4).data) == b"data:image/png;base64,xxxx"


class Machine(RuleBasedStateMachine):
    """Any order of uses keeps the count true and the bound held."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.store = Store(max_bytes=bytes_for(3, 300), max_seconds=5, clock=self.clock)

    names = st.sampled_from("12345")
    tenants = st.sampled_from("ab")

    @rule(tenant=tenants, name=names, size=st.integers(0, 600))
    def put(self, tenant: str, name: str, size: int) -> None:
        fits = self.store.put(tenant, stored(name, size))
        assert fits == (self.store.get(tenant, name) is not None)

    @rule(tenant=tenants, name=names)
    def get(self, tenant: str, name: str) -> None:
        found = self.store.get(tenant, name)
        assert found is None or found.file_id == name

    @rule(tenant=tenants, name=names, chosen=names)
    def name(self, tenant: str, name: str, chosen: str) -> None:
        self.store.name(tenant, chosen, name)

    @rule(tenant=tenants, name=names)
    def remove(self, tenant: str, name: str) -> None:
        there = any(each.file_id == name for each in self.store.files(tenant))
        assert self.store.remove(tenant, name) == there

    @precondition(lambda self: self.clock.now < 100)
    @rule(seconds=st.floats(0, 4))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @invariant()
    def bounded_and_counted(self) -> None:
        held = sum(each.cost_bytes for tenant in "ab" for each in self.store.files(tenant))
        assert self.store.held_bytes == held <= bytes_for(3, 300)


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=40, stateful_step_count=30)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 40)), max_size=40))
def test_the_newest_is_always_there(puts: list[tuple[str, int]]) -> None:
    store = Store(max_bytes=bytes_for(3, 40))
    for n, (tenant, size) in enumerate(puts):
        assert store.put(tenant, stored(str(n), size))
        assert store.get(tenant, str(n))
        assert store.held_bytes <= bytes_for(3, 40)
