from __future__ import annotations

from tests.fleet.conftest import folder as folder
