"""`vlfleet demo` with fake engines: `python -m tests.cli.fake_demo PICTURES ANSWER [OPTION]...`"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import vlfleet.checkpoint
import vlfleet.demo
import vlfleet.fleet.engines
from tests.fakes import FakeEngine
from vlfleet.cli import main

if __name__ == "__main__":
    pictures, answer = Path(sys.argv[1]), sys.argv[2]
    bundle: Any = vlfleet.demo
    bundle.image_path = lambda name: pictures / name
    bundle.QUESTIONS = (vlfleet.demo.Question("a.png", "How many?", vlfleet.demo.Number(4)),)
    checkpoint: Any = vlfleet.checkpoint
    checkpoint.preflight = lambda model: SimpleNamespace(path=pictures)
    engines: Any = vlfleet.fleet.engines
    engines.engine_named = lambda name: FakeEngine("--answers", json.dumps({"How many?": answer}))
    sys.argv = ["vlfleet", "demo", *sys.argv[3:]]
    main()
