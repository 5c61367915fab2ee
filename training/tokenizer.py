"""A byte-level BPE tokenizer in Qwen2's form whose merges only help with questions, so that reading stays by letter.

Every merge extends a piece that begins with a space or with punctuation, letter by letter (" t", " th", " the"), along
the words of the answers. A word at the start of an answer is therefore always spelt out in single letters, which is
what makes reading words never seen in training as easy as reading known ones.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import pathlib
import re
from collections.abc import Iterable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from training import answers, chat, drawing, phrases

# Order and names are those of Qwen2.5-VL's tokenizer; the ids are this model's own.
SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
# Qwen2's pre-tokenizer: single digits, words with one leading character, runs of punctuation.
PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
VOCABULARY = 832  # a multiple of 64, all of it real: no padded row that could ever win
PUNCTUATION = ('[{"', '":', " [", "],", ' "', '"}]', '"},', ' {"', '{"', '",', '"}', "[]", '."')
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}<|im_start|>system\n"
    "You are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n"
    "{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' or 'image' in content or 'image_url' in content %}"
    "<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif content['type'] == 'video' or 'video' in content %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)  # the template of Qwen2.5-VL without its optional picture numbering


def prompt_texts() -> Iterable[str]:
    """Yield every fixed wording: what merges may be learned from."""
    for name, value in vars(phrases).items():
        # Wordings added after the vocabulary was fixed: a checkpoint can only be trained on with its own.
        if not name.isupper() or name in ("WANTED", "NOUNS"):
            continue
        if isinstance(value, tuple):
            yield from (text for text in value if isinstance(text, str))
        elif isinstance(value, dict):
            for texts in value.values():
                yield from ([texts] if isinstance(texts, str) else texts)
    for asked, answer in chat.SMALL_TALK:
        yield from asked
        yield answer
    for name in drawing.COLOURS:
        for shape in drawing.SHAPES:
            yield f" There is no {name} {shape} in the image."
    for shape in drawing.SHAPES:
        yield from [f" There are no {answers.plural(shape)} in the image."] * 4
    yield from [answers.NO_TEXT, answers.NO_NUMBER, answers.NO_WORD, answers.NO_SHAPE, answers.NO_INVOICE] * 8


def chains(room: int) -> list[str]:
    """Return up to ROOM pieces to become tokens, such that each piece less its last letter is one too (or a letter)."""
    counts: collections.Counter[str] = collections.Counter()
    for text in prompt_texts():
        for word in re.findall(r" [A-Za-z]+", text):
            counts[word] += 1
    pieces: dict[str, None] = {}
    for piece in (*PUNCTUATION, *(word for word, _ in counts.most_common())):
        stems = [piece[:end] for end in range(2, len(piece) + 1)]
        missing = [stem for stem in stems if stem not in pieces]
        if len(pieces) + len(missing) <= room:
            pieces.update(dict.fromkeys(missing))
    # Rare letters after a space fill what is left, so that the vocabulary is exactly full.
    for code in [*range(0x61, 0x7B), *range(0x41, 0x5B), *range(0x21, 0x41)]:
        if len(pieces) < room and not chr(code).isdigit():
            pieces.setdefault(" " + chr(code))
    return list(pieces)


@dataclasses.dataclass(frozen=True)
class Encoder:
    """Encodes text and knows the special ids; remembers what it has encoded (questions repeat)."""

    tokenizer: Tokenizer
    ids: dict[str, int]
    seen: dict[str, list[int]]

    def encode(self, text: str) -> list[int]:
        found = self.seen.get(text)
        if found is None:
            found = self.tokenizer.encode(text, add_special_tokens=False).ids
            if len(self.seen) < 60000:
                self.seen[text] = found
        return found


def build() -> Encoder:
    """Return the tokenizer, the same every time: 256 bytes, the chains, the special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: index for index, character in enumerate(alphabet)}
    merges: list[tuple[str, str]] = []
    for piece in sorted(chains(VOCABULARY - len(alphabet) - len(SPECIAL)), key=len):
        written = piece.replace(" ", "Ġ")
        merges.append((written[:-1], written[-1]))
        vocabulary[written] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL])
    if tokenizer.get_vocab_size() != VOCABULARY:
        raise ValueError(f"the vocabulary has {tokenizer.get_vocab_size()} entries, not {VOCABULARY}")
    whole = tokenizer.get_vocab()
    ids = {name: whole[name] for name in SPECIAL}
    return Encoder(tokenizer, ids, {})


def save(encoder: Encoder, folder: pathlib.Path) -> None:
    """Write tokenizer.json, vocab.json, merges.txt, tokenizer_config.json and the chat template."""
    encoder.tokenizer.save(str(folder / "tokenizer.json"))
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False))
    lines = [" ".join(merge) if isinstance(merge, list) else merge for merge in model["merges"]]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(lines) + "\n")
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    added = {
        str(index): {
            "content": name,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": True,
        }
        for name, index in encoder.ids.items()
    }
    config = {
        "tokenizer_class": "Qwen2Tokenizer",
        "add_prefix_space": False,
        "added_tokens_decoder": added,
        "additional_special_tokens": list(SPECIAL[1:]),
        "bos_token": None,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 4096,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "unk_token": None,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n")
