"""Ask OSV (osv.dev, which has PyPA's advisories) whether a release of requirements.lock is known to be vulnerable.

python scripts/audit.py [--if-online]

One request, and nothing is installed. Exit code 0: none is. 1: some are, listed on stdout. 3: OSV cannot be reached, so
nothing is known; with --if-online that is said and is no failure.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

LOCK = Path(__file__).parents[1] / "requirements.lock"
URL = "https://api.osv.dev/v1/querybatch"
TIMEOUT_SECONDS = 20.0
CLEAN, FOUND, UNKNOWN = 0, 1, 3

Release = tuple[str, str]


def locked(text: str) -> list[Release]:
    """(name, version) of every line."""
    return re.findall(r"^([A-Za-z0-9._-]+)==(\S+)$", text, re.MULTILINE)


def question(releases: Sequence[Release]) -> bytes:
    packages = [{"package": {"name": name, "ecosystem": "PyPI"}, "version": version} for name, version in releases]
    return json.dumps({"queries": packages}).encode()


def found(releases: Sequence[Release], answer: dict[str, Any]) -> dict[Release, list[str]]:
    """Advisories of each release that has any.

    Raises:
        ValueError: not an answer to this question.
    """
    ids = ([each["id"] for each in result.get("vulns") or ()] for result in answer["results"])
    return {release: holes for release, holes in zip(releases, ids, strict=True) if holes}


def ask(releases: Sequence[Release], url: str) -> dict[Release, list[str]]:
    request = urllib.request.Request(url, question(releases), {"Content-Type": "application/json"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as reply:  # noqa: S310 - the URL above
        return found(releases, json.load(reply))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python scripts/audit.py", description=__doc__)
    parser.add_argument("--if-online", action="store_true", help="no failure where OSV cannot be reached")
    options = parser.parse_args()
    releases = locked(LOCK.read_text())
    try:
        holes = ask(releases, os.environ.get("OSV_URL", URL))
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = getattr(error, "reason", error)
        print(
            f"audit: NOT DONE, {len(releases)} packages are not checked: OSV cannot be asked ({reason})",
            file=sys.stderr,
        )
        return CLEAN if options.if_online else UNKNOWN
    for (name, version), ids in holes.items():
        print(f"{name}=={version}  {' '.join(ids)}  https://osv.dev/vulnerability/{ids[0]}")
    print(f"audit: {len(holes)} of {len(releases)} packages have known vulnerabilities", file=sys.stderr)
    return FOUND if holes else CLEAN


if __name__ == "__main__":
    sys.exit(main())
