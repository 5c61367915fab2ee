"""Do other versions of transformers read what `normalise` writes, and what do they say to what it was made from?

    python -m benchmarks.checkpoint_readers --python /path/to/4.49/bin/python [--python ...]

Each Python needs torch and one version of transformers. Every form of tests/checkpoint/test_normalise.py, of a tiny
Qwen2-VL and Qwen2.5-VL, is read before and after `normalise`: "same" means logits equal to those of the hub's form, bit
for bit, in the same version; "other" means that it loads and computes something else, silently.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.checkpoint.test_normalise import FORMS
from tests.checkpoints import write_tiny_checkpoint
from vlfleet.checkpoint.normalise import plan_normalise, write_normalised

READER = """
import hashlib, json, sys, warnings
warnings.filterwarnings("ignore")
import torch, transformers
from pathlib import Path
transformers.utils.logging.set_verbosity_error()
tokens = torch.tensor([[819, 5, 6, 7, 827, *[830] * 16, 828, 9, 10, 11, 820]])
more = {}
if int(transformers.__version__.split(".")[0]) >= 5:
    more["mm_token_type_ids"] = (tokens == 830).int()
for folder in sys.argv[1:]:
    said = {"version": transformers.__version__}
    name = json.loads((Path(folder) / "config.json").read_text())["architectures"][0]
    try:
        model = getattr(transformers, name).from_pretrained(folder, torch_dtype=torch.float32).eval()
        pixels = torch.randn(64, 1176, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            logits = model(input_ids=tokens, attention_mask=torch.ones_like(tokens), pixel_values=pixels,
                           image_grid_thw=torch.tensor([[1, 8, 8]]), use_cache=False, **more).logits
        said["logits"] = hashlib.sha256(logits.numpy().tobytes()).hexdigest()
    except Exception as error:
        said["error"] = f"{type(error).__name__}: {error}".splitlines()[0][:90]
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        said["tokens"] = tokenizer("<|im_start|>hello 123")["input_ids"]
        said["template"] = bool(tokenizer.chat_template)
    except Exception as error:
        said["tokenizer"] = f"{type(error).__name__}: {error}".splitlines()[0][:90]
    try:
        size = transformers.AutoImageProcessor.from_pretrained(folder).size
        said["pixels"] = [size["shortest_edge"], size["longest_edge"]]
    except Exception as error:
        said["processor"] = f"{type(error).__name__}: {error}".splitlines()[0][:90]
    print(json.dumps(said))
"""


def read(python: str, folders: list[Path]) -> list[dict[str, object]]:
    done = subprocess.run([python, "-c", READER, *map(str, folders)], capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def told(said: dict[str, object], hub: dict[str, object]) -> str:
    """What is different from the hub's form in this version."""
    words = [str(said[key]) for key in ("error", "tokenizer", "processor") if key in said]
    if "error" not in said:
        words.insert(0, "same" if said["logits"] == hub["logits"] else "other")
    words += [f"{key} {said[key]}" for key in ("tokens", "template", "pixels") if key in said and said[key] != hub[key]]
    return "; ".join(words)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", action="append", required=True)
    args = parser.parse_args()
    base = Path(tempfile.mkdtemp())
    try:
        for model_type in ("qwen2_vl", "qwen2_5_vl"):
            hub = write_tiny_checkpoint(base / model_type / "hub", model_type)
            folders = [hub]
            for number, damage in enumerate(FORMS.values()):
                source = Path(shutil.copytree(hub, base / model_type / f"{number}"))
                damage(source)
                write_normalised(plan_normalise(source), base / model_type / f"{number}n")
                folders += [source, base / model_type / f"{number}n"]
            for python in args.python:
                first, *rest = read(python, folders)
                print(f"\n{model_type}, transformers {first['version']}")
                for form, before, after in zip(FORMS, rest[::2], rest[1::2], strict=True):
                    print(f"  {form:<24} {told(before, first)}  ->  {told(after, first)}")
    finally:
        shutil.rmtree(base)


if __name__ == "__main__":
    main()
