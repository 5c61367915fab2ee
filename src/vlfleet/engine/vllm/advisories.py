"""What attackers can do to which releases of vLLM, and what vlfleet does about it.

Releases before 0.20 are not started at all (`versions.FIRST`), so what was mended before is not here.
"""

from __future__ import annotations

from dataclasses import dataclass

from vlfleet.plan.releases import Release


@dataclass(frozen=True)
class Advisory:
    """One hole. `fixed` is the first release without it; None: 0.33 still has it."""

    id: str
    fixed: Release | None
    what: str
    covered: str = ""
    """What of vlfleet stands before it; empty: nothing does, once somebody reaches the engine."""
    source: str = ""

    @property
    def remedy(self) -> str:
        since = ".".join(map(str, self.fixed)) if self.fixed else ""
        return "; ".join(filter(None, (self.covered, f"{since} and newer do not" * bool(since))))

    def concerns(self, release: Release) -> bool:
        return self.fixed is None or release < self.fixed


HOST_HEADER = Advisory(
    "CVE-2026-48746",
    (0, 22, 0),
    "lets a crafted Host header past its API key",
    source="GHSA-94f4-hr76-p5j6, 9.1",
)
"""The gateway refuses such a Host and no engine listens beyond loopback, yet an exposed fleet has one line of defence
less than it should: it is not started."""
IMAGE_BOMB = Advisory(
    "vLLM PR #47010",
    (0, 25, 1),
    "decodes images of any size",
    covered="the gateway reads headers first and refuses more than 33.5 megapixels",
    source="VLLM_MAX_IMAGE_PIXELS is in 0.25.1 and not in 0.24.0",
)
PROCESSOR_FETCHES = Advisory(
    "vLLM PR #43117",
    (0, 22, 0),
    "a processor (MiMo) fetches URLs and reads files by itself",
    covered="no URL reaches an engine: the gateway fetches",
    source="the pull request, 2026-05",
)
PRIVATE_ADDRESSES = Advisory(
    "vLLM #57157",
    None,
    "fetches media from private addresses, and follows redirects to them",
    covered="no URL reaches an engine: the gateway fetches, and checks the address of every socket",
    source="issue #57157, PR #57825; multimodal/media/connector.py of 0.32.0 checks names only, and only with a list",
)
PROCESSOR_KWARGS = Advisory(
    "vLLM PR #51449",
    (0, 32, 0),
    "lets 404 bytes of mm_processor_kwargs ask for 700 MiB",
    covered="the gateway refuses more pixels than the fleet allows, and keys that it does not know",
    source="--trust-request-mm-kwargs is absent in 0.26.0, and off in 0.32.0 (entrypoints/launchers/cli_args.py)",
)
ADVISORIES = (HOST_HEADER, IMAGE_BOMB, PROCESSOR_FETCHES, PRIVATE_ADDRESSES, PROCESSOR_KWARGS)
REFUSED_EXPOSED = (HOST_HEADER,)
"""With these no fleet is reachable from a network."""
WARNED = (IMAGE_BOMB,)
"""Of these a person is told."""
