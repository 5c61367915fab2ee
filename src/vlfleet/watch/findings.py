"""What to change, out of what a fleet did: pure rules, each with its number. A report shows the first five."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from vlfleet.watch.setup import Setup
from vlfleet.watch.sizes import ENDS, SIZES

MOST = 5
LEAST = 100
"""Requests or media below which nothing is advised."""
IDLE, BUSY = 0.05, 0.3
"""Utilisation of a GPU that does nothing, and of one that works."""
TWICE_SHARE = 0.1
"""Of looks that were needless from which it is told."""
QUEUE_SHARE, SPARE = 0.05, 0.5
"""Of the time in which requests waited although GPUs had this much to spare."""
TRUST = 0.8
"""Share of its cache that an engine should still hold."""
KV_SHARE = 0.2
"""Of the KV cache, which should be needed at some moment."""
RESERVING = "vllm"
"""This engine takes the memory for its caches when it starts, needed or not."""
_GIB = 1 << 30


@dataclass(frozen=True)
class Past:
    """What a fleet did, as far as advice depends on it. None: nobody told."""

    requests: float = 0.0
    images: float = 0.0
    needed: float = 0.0
    """Looks of vision towers at media that no replica held."""
    repeated: float = 0.0
    """Looks at media that another replica held."""
    avoided: float = 0.0
    gpu_utilization: Mapping[str, float] = field(default_factory=dict)
    """Over the whole time, by GPU."""
    held: frozenset[str] = frozenset()
    """GPUs that belong to replicas."""
    queued_idle_share: float | None = None
    """Of the time in which requests waited and the fleet's GPUs were less than half in use."""
    host_cpu: float | None = None
    trust: float | None = None
    """The least of the replicas' means."""
    kv_most: float | None = None
    """The fullest that any KV cache ever was."""
    sizes: Mapping[str, float] = field(default_factory=dict)
    """Requests by class of `sizes`."""


@dataclass(frozen=True)
class Finding:
    """One thing to change."""

    code: str
    value: float
    """The number in `text`; its unit is the rule's."""
    text: str
    advice: str


def findings(past: Past, setup: Setup) -> tuple[Finding, ...]:
    """What should be changed, the most costly first; at most `MOST`."""
    found = (rule(past, setup) for rule in RULES)
    return tuple(each for each in found if each)[:MOST]


def idle_gpu(past: Past, setup: Setup) -> Finding | None:
    """A GPU did nothing while another worked."""
    shares = past.gpu_utilization
    idle = sorted(name for name, share in shares.items() if share < IDLE)
    busy = max(shares.values(), default=0.0)
    if not idle or busy < BUSY or past.requests < LEAST:
        return None
    text = f"{_some(idle)} worked {shares[idle[0]]:.0%} of the time, the busiest GPU {busy:.0%}"
    if past.held & set(idle):
        return Finding(
            "idle_gpu",
            shares[idle[0]],
            text,
            "`vlfleet status` and `vlfleet route explain` say why its replica gets nothing",
        )
    return Finding(
        "idle_gpu",
        shares[idle[0]],
        text,
        "no replica has it: `vlfleet plan` says what all GPUs could do, --replicas uses it",
    )


def queue_while_idle(past: Past, setup: Setup) -> Finding | None:
    """Requests waited at the gateway while GPUs had time."""
    share = past.queued_idle_share
    if share is None or share < QUEUE_SHARE or past.requests < LEAST:
        return None
    advice = "raise --max-num-seqs; if API servers are at 100 % of a core, add replicas or lower --max-pixels"
    if past.host_cpu is not None and past.host_cpu > 0.85:
        advice = f"the host's CPU is {past.host_cpu:.0%} in use: more cores, smaller pictures or --fit help"
    return Finding("queue_while_idle", share, f"in {share:.0%} of the time requests waited and GPUs had time", advice)


def looked_at_twice(past: Past, setup: Setup) -> Finding | None:
    """Pictures were encoded on two replicas."""
    looks = past.needed + past.repeated
    if looks + past.avoided < LEAST or not looks or past.repeated / looks < TWICE_SHARE:
        return None
    share = past.repeated / looks
    text = f"{past.repeated:,.0f} of {looks:,.0f} pictures ({share:.0%}) were encoded again on another replica"
    advice = "`--policy predicted` sends a picture to the replica that holds it; with it, raise --mm-processor-cache-gb"
    return Finding("looked_at_twice", share, text, advice)


def mm_cache_small(past: Past, setup: Setup) -> Finding | None:
    """An engine forgot pictures that it should have held."""
    if past.trust is None or past.trust >= TRUST or past.images < LEAST:
        return None
    text = f"a replica's media cache had lost {1 - past.trust:.0%} of what it should hold"
    return Finding("mm_cache_small", 1 - past.trust, text, "raise --mm-processor-cache-gb, if the host has the memory")


def encoder_unused(past: Past, setup: Setup) -> Finding | None:
    """Nobody sent a picture."""
    if past.images or past.requests < LEAST or setup.engine != RESERVING:
        return None
    freed = setup.planned.encoder_bytes if setup.planned else None
    room = f", which frees {freed / _GIB:.1f} GiB a GPU by the plan" if freed else ""
    return Finding(
        "encoder_unused",
        past.requests,
        f"none of {past.requests:,.0f} requests had a picture",
        f"""`--limit-mm-per-prompt '{{"image":0,"video":0}}'` leaves the memory for pictures to the KV cache{room}""",
    )


def max_pixels_unused(past: Past, setup: Setup) -> Finding | None:
    """No request had half the visual tokens that one picture may have: memory is kept for pictures that never come."""
    allowed = setup.max_visual_tokens
    seen = [number for number, size in enumerate(SIZES) if past.sizes.get(size)]
    if allowed is None or past.images < LEAST or not seen or seen[-1] in (0, len(ENDS)) or setup.engine != RESERVING:
        return None
    largest = ENDS[seen[-1]]
    if allowed < 2 * largest:
        return None
    pixels = largest * setup.pixels_per_token
    text = f"--max-pixels allows {allowed:,} visual tokens a picture, no request had more than {largest:,}"
    return Finding(
        "max_pixels_unused",
        allowed,
        text,
        f"`--max-pixels {pixels}` needs less memory, and no picture that came would look different",
    )


def kv_unused(past: Past, setup: Setup) -> Finding | None:
    """The KV cache was never full to a fifth: memory that does nothing."""
    if past.kv_most is None or past.kv_most >= KV_SHARE or past.requests < LEAST or setup.engine != RESERVING:
        return None
    text = f"no KV cache was ever more than {past.kv_most:.0%} full"
    advice = "a smaller GPU would do, or one for two models (--gpu-memory-utilization); --max-num-seqs may be higher"
    return Finding("kv_unused", past.kv_most, text, advice)


RULES: tuple[Callable[[Past, Setup], Finding | None], ...] = (
    idle_gpu,
    queue_while_idle,
    looked_at_twice,
    mm_cache_small,
    encoder_unused,
    max_pixels_unused,
    kv_unused,
)
"""By what they cost: a GPU, waiting clients, work done twice, memory."""


def _some(names: list[str]) -> str:
    return (
        names[0]
        if len(names) == 1
        else f"{len(names)} GPUs ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})"
    )
