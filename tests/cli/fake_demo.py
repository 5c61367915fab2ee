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
from vlfleet.families.family import QWEN2_5_VL

if __name__ == "__main__":
    pictures, answer = Path(sys.argv[1]), sys.argv[2]
    bundle: Any = vlfleet.demo
    bundle.image_path = lambda name: pictures / name
    bundle.QUESTIONS = (vlfleet.demo.Question("a.png", "How many?", vlfleet.demo.Number(4)),)
    checkpoint: Any = vlfleet.checkpoint
    info = SimpleNamespace(path=pictures, family=QWEN2_5_VL, min_pixels=3136, max_pixels=1003520)
    checkpoint.preflight = lambda model, **_: info
    engines: Any = vlfleet.fleet.engines
    engines.engine_named = lambda name: FakeEngine("--answers", json.dumps({"How many?": answer}))
    sys.argv = ["vlfleet", "demo", *sys.argv[3:]]
    main()
