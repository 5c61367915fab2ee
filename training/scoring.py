"""Judge answers: exact text, boxes by overlap, JSON by its fields."""

from __future__ import annotations

import json
from typing import Any

from training.exam import Task


def overlap(a: list[float], b: list[float]) -> float:
    """Return the intersection over union of two boxes."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def _boxes(answer: str) -> list[dict[str, Any]]:
    """Return the entries of a JSON answer that have a box; raises ValueError for anything else."""
    entries = json.loads(answer)
    if not isinstance(entries, list) or any(len(entry["bbox_2d"]) != 4 for entry in entries):
        raise ValueError("not a list of boxes")
    return entries


def judge(how: str, answer: str, right: str) -> dict[str, float]:
    """Return named scores in [0, 1] of one answer."""
    if how == "exact":
        return {"exact": float(answer == right)}
    if how == "lines":
        return {"exact": float(answer == right), "lines exact": _share(answer.split("\n"), right.split("\n"))}
    try:
        given: Any = json.loads(answer)
        wanted: Any = json.loads(right)
        scores = {"valid JSON": 1.0}
        if how == "fields":
            if not isinstance(given, dict):
                raise ValueError("not an object")
            return scores | {
                "exact": float(given == wanted),
                "fields exact": sum(given.get(k) == v for k, v in wanted.items()) / len(wanted),
            }
        entries, truth = _boxes(answer), _boxes(right)
        pairs = list(zip(entries, truth, strict=False))
        ious = [overlap(a["bbox_2d"], b["bbox_2d"]) for a, b in pairs]
        scores["mean IoU"] = sum(ious) / max(len(truth), len(entries), 1)
        if how != "box":
            scores["text exact"] = sum(a.get("text_content") == b["text_content"] for a, b in pairs) / max(
                len(truth), 1
            )
        return scores
    except (ValueError, KeyError, TypeError):
        return {"valid JSON": 0.0, "exact": 0.0, "fields exact": 0.0, "mean IoU": 0.0, "text exact": 0.0}


def _share(given: list[str], wanted: list[str]) -> float:
    return sum(a == b for a, b in zip(given, wanted, strict=False)) / len(wanted)


def scores_of(task: Task, answers: list[str], rights: list[str]) -> dict[str, Any]:
    """Return the mean scores of a task, its sample count, and how often it wrongly said that nothing is there."""
    how = {
        "box": ("valid JSON", "mean IoU"),
        "box_text": ("valid JSON", "mean IoU", "text exact"),
        "spots": ("valid JSON", "mean IoU", "text exact"),
        "fields": ("valid JSON", "exact", "fields exact"),
        "lines": ("exact", "lines exact"),
    }.get(task.judge, ("exact",))
    judged = [judge(task.judge, a, r) for a, r in zip(answers, rights, strict=True)]
    means = {name: sum(j.get(name, 0.0) for j in judged) / len(judged) for name in how}
    refused = sum(
        a.startswith(("There is no", "There are no")) and not r.startswith(("There is no", "There are no"))
        for a, r in zip(answers, rights, strict=True)
    )
    wrong = [
        (r, a) for a, r, j in zip(answers, rights, judged, strict=True) if min(j.get(name, 0.0) for name in how) < 0.7
    ][:4]
    return {
        "samples": len(answers),
        **{name: round(value, 4) for name, value in means.items()},
        "false_refusals": refused,
        "wrong": wrong,
    }
