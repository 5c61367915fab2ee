"""`vlfleet`, but all replicas have one key, `$ROUTE_KEY`: other routers pass the client's on, and know only one.

ROUTE_KEY=... python -m benchmarks.route_one_key up ...
"""

from __future__ import annotations

import os
import secrets

from vlfleet.cli import main

if __name__ == "__main__":
    secrets.token_urlsafe = lambda nbytes=None: os.environ["ROUTE_KEY"]
    main()
