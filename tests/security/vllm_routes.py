"""Run by the Python that has vLLM, this prints its routes as tests/security/vllm_routes.json keeps them: [method, path,
whether it answers a wrong key although --api-key is set]. With `--dev`, those of VLLM_SERVER_DEV_MODE too.

.venv-vllm/bin/python tests/security/vllm_routes.py --dev
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

METHODS = {"GET", "POST", "PUT", "DELETE", "PATCH"}


def routes(dev: bool) -> dict[str, Any]:
    if dev:
        os.environ |= {"VLLM_SERVER_DEV_MODE": "1", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}
    import vllm
    from starlette.testclient import TestClient  # type: ignore[import-not-found]
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.entrypoints.openai.api_server import build_app
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    flags = ["--api-key", "right"] + ["--enable-tokenizer-info-endpoint"] * dev
    app = build_app(
        make_arg_parser(FlexibleArgumentParser()).parse_args(flags), ("generate", "transcription", "render")
    )
    client = TestClient(app, raise_server_exceptions=False)
    found: set[tuple[str, str]] = set()
    for route in app.routes:
        found |= {(method, str(route.path)) for method in (getattr(route, "methods", None) or {"GET"}) & METHODS}
    wrong = {"Authorization": "Bearer wrong"}
    asked = [
        [method, path, client.request(method, path.translate({123: "", 125: ""}), headers=wrong).status_code != 401]
        for method, path in sorted(found, key=lambda each: each[::-1])
    ]
    return {"vllm": vllm.__version__, "dev": dev, "routes": asked}


if __name__ == "__main__":
    print(json.dumps(routes("--dev" in sys.argv)))
