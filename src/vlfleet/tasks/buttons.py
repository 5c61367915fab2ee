"""The tasks as buttons of the web page's chat: what each one asks, and what its answer holds. Pure but for the prompts.

The page fills {what} in, sends the prompt with the pictures as the task's own command would, and draws the boxes.
"""

from __future__ import annotations

from typing import Any

from vlfleet.errors import VlfleetError
from vlfleet.tasks.prompt import LANGUAGES, Prompt, PromptSet, filled, prompts_for

WHAT = "{what}"
TASKS: dict[str, tuple[dict[str, str], str, str]] = {
    "ocr": ({"en": "Read text", "zh": "读出文字"}, "text", ""),
    "spot": ({"en": "Text with boxes", "zh": "定位文字"}, "boxes", ""),
    "extract": ({"en": "Extract fields", "zh": "提取字段"}, "json", "fields"),
    "ground": ({"en": "Find things", "zh": "框出物体"}, "boxes", "what"),
    "point": ({"en": "Point at things", "zh": "指出物体"}, "points", "what"),
    "count": ({"en": "Count things", "zh": "计数"}, "boxes", "what"),
    "parse": ({"en": "Parse a document", "zh": "解析文档"}, "html", ""),
    "caption": ({"en": "Describe", "zh": "描述图片"}, "text", ""),
    "solve": ({"en": "Solve a problem", "zh": "解题"}, "text", ""),
    "design-to-html": ({"en": "Screenshot to HTML", "zh": "截图转 HTML"}, "html", ""),
}
"""In the order of the buttons: title, what the answer holds, and what the person says: "what" is the name of a thing,
"fields" are names of fields, for which the page puts the empty JSON that the prompt shows."""


def buttons(model: str) -> list[dict[str, Any]]:
    """The tasks that a model served as `model` was taught, as JSON has them: `name`, `title` and `prompt` by language,
    `system`, `answer` ("text", "boxes", "points", "json" or "html"), `fields` of the request, `needs`."""
    sets = {language: _prompts(model, language) for language in LANGUAGES}
    return [_button(name, sets) for name in TASKS if name in sets["en"].tasks]


def _prompts(model: str, language: str) -> PromptSet:
    """A model that knows one language only is asked in that one."""
    try:
        return prompts_for(model, language)
    except VlfleetError:
        return prompts_for(model)


def _button(name: str, sets: dict[str, PromptSet]) -> dict[str, Any]:
    title, answer, needs = TASKS[name]
    own = sets["en"].tasks[name]
    return {
        "name": name,
        "title": title,
        "prompt": {language: _asked(prompts.tasks[name]) for language, prompts in sets.items()},
        "system": own.system,
        "answer": "text" if name == "count" and own.counts == "number" else answer,
        "fields": {"temperature": own.temperature, "max_tokens": own.max_tokens},
        "needs": needs,
    }


def _asked(prompt: Prompt) -> str:
    return filled(prompt.user, thing=WHAT, skeleton=WHAT, notes="", question=prompt.question)
