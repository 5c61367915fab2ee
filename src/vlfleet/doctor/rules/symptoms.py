"""What leaves no line in a log: known by what a person writes of it, or by the answer that is pasted."""

from __future__ import annotations

from vlfleet.doctor.figures import MODEST_PIXELS
from vlfleet.doctor.kinds import FailureKind
from vlfleet.doctor.rule import Role, Rule
from vlfleet.doctor.sign import Sign, phrase


def _symptom(
    name: str, number: str, signs: tuple[Sign, ...], cause: str, remedy: str, threads: tuple[str, ...],
    kind: FailureKind = FailureKind.CONFIGURATION,
) -> Rule:  # fmt: skip
    return Rule(name, kind, signs, cause, remedy, (number,), threads, role=Role.SYMPTOM)


RULES = (
    _symptom(
        "only-exclamation-marks",
        "Q3",
        (phrase(r"[!！]{8,}|\b(?:only|all|just|nothing but)\W+exclamation marks|(?:全|只|都).{0,6}感叹号"),),
        "the logits are nan: fp16 overflows in a GPTQ-Int4 checkpoint, or a quantisation group is cut in two",
        "--dtype bfloat16; AWQ or GPTQ-Int8 instead of GPTQ-Int4; TP 1 tells which of the two it is (72B:"
        " intermediate_size 29696)",
        ("vllm-project/vllm#14126", "vllm-project/vllm#15194", "vllm-project/vllm#24025", "QwenLM/Qwen3#1103"),
    ),
    _symptom(
        "start-takes-minutes",
        "Q43",
        (
            phrase(
                r"\b(?:stuck|hangs?|hung|frozen)\b.{0,200}\b(?:start-?up|starting|profil\w+|before (?:it )?serv\w+)"
                r"|\b(?:start-?up|starting|profil\w+)\b.{0,200}\b(?:stuck|hangs?|hung|frozen|takes? \d+ min\w*)"
            ),
        ),
        "the profiling run prepares an image of 16,384 visual tokens and a video with one Python thread",
        '--limit-mm-per-prompt \'{{"image": 1, "video": 0}}\' --mm-processor-kwargs'
        f" '{{{{\"max_pixels\": {MODEST_PIXELS}}}}}', and OMP_NUM_THREADS above 1",
        ("vllm-project/vllm#13651",),
    ),
    _symptom(
        "gpu-idle-cpu-busy",
        "Q44",
        (
            phrase(
                r"\bgpu\b.{0,60}\b(?:[1-4]?\d ?%|idle|low|under-?utili[sz]ed).{0,200}\bcpu\b.{0,60}(?:100 ?%|busy|bound"
                r"|bottleneck|full)"
                r"|\bcpu\b.{0,60}(?:100 ?%|busy|bound|bottleneck|full).{0,200}\bgpu\b.{0,60}\b(?:[1-4]?\d ?%|idle|low"
                r"|under-?utili[sz]ed)"
            ),
        ),
        "images are prepared by one process in Python while the GPU waits",
        f"fit the images to {MODEST_PIXELS} pixels before sending; replicas before tensor parallelism, each image"
        " always to the same one (139 instead of 35 known images/s on two H200); --renderer-num-workers 8",
        ("vllm-project/vllm#15869", "vllm-project/vllm#21873", "QwenLM/Qwen3-VL#1678"),
    ),
    _symptom(
        "second-image-box-wrong",
        "Q50",
        (
            phrase(
                r"\b(?:second|2nd|other|last) (?:image|picture)\b.{0,80}\b(?:b(?:ounding )?box\w*|bbox\w*"
                r"|coordinates?|grounding)\b"
                r"|\b(?:b(?:ounding )?box\w*|bbox\w*|coordinates?)\b.{0,60}\b(?:second|2nd) (?:image|picture)\b"
            ),
        ),
        "with several images the model mixes up whose pixels it counts",
        'put "Picture 1: ", "Picture 2: " before the images (add_vision_id), or ask for boxes of one image a request',
        ("vllm-project/vllm#14662",),
        FailureKind.REQUEST,
    ),
    _symptom(
        "boxes-shifted",
        "Q49",
        (
            phrase(
                r"\b(?:b(?:ounding )?box(?:es)?|bbox(?:es)?|coordinates?)\b.{0,80}"
                r"\b(?:shift\w*|offsets?|displaced|misplaced|outside|incorrect|wrong|bias|slightly off)\b"
                r"|(?:坐标|框).{0,20}(?:偏移|不准|错)"
            ),
        ),
        "Qwen2.5-VL counts pixels of the resized image; Qwen2-VL and Qwen3-VL count thousandths",
        "Qwen2.5-VL: x * width / resized_width with smart_resize(factor 28, the server's min_pixels and max_pixels);"
        " Qwen2-VL and Qwen3-VL: x * width / 1000; clamp to the image; send images that need no resizing",
        (
            "QwenLM/Qwen3-VL#676",
            "QwenLM/Qwen3-VL#721",
            "QwenLM/Qwen3-VL#830",
            "QwenLM/Qwen3-VL#947",
            "QwenLM/Qwen3-VL#1035",
            "ggml-org/llama.cpp#16880",
        ),
        FailureKind.REQUEST,
    ),
    _symptom(
        "answer-repeats",
        "Q51",
        (
            phrase(
                r"\b(?:repeat\w*|repetiti\w+|loop\w*)\b.{0,200}\b(?:max_tokens|max_new_tokens|endless\w*|forever"
                r"|never stops?|until)\b"
            ),
            phrase(r"((?=[^\n]{0,60}[a-z\u4e00-\u9fff])[^\n]{6,60}?)\1{7,}"),
        ),
        "greedy decoding without a penalty falls into a loop",
        "repetition_penalty 1.05 (Qwen2.5-VL) or presence_penalty 1.5 (Qwen3-VL), max_tokens at what an answer"
        " needs; AWQ instead of GPTQ-Int4",
        ("QwenLM/Qwen3-VL#998", "QwenLM/Qwen3#513", "QwenLM/Qwen3#1090", "vllm-project/vllm#5663"),
        FailureKind.REQUEST,
    ),
    _symptom(
        "json-schema-ignored",
        "Q52",
        (
            phrase(
                r"\b(?:json[ _]?schema|guided[ _]json|response_format|structured outputs?)\b.{0,80}"
                r"\b(?:ignored|not (?:respected|followed|applied|working|work)|no effect|empty|invalid json)\b"
            ),
        ),
        "the schema is given in a way that this version does not read, or with keywords that its grammar does not know",
        'response_format {{"type": "json_schema", "json_schema": {{"name": "x", "schema": {{...}}}}}} (vLLM 0.32 has no'
        " guided_json any more), and the schema in the prompt too",
        ("vllm-project/vllm#13038",),
        FailureKind.REQUEST,
    ),
    _symptom(
        "video-never-answers",
        "Q53",
        (
            phrase(
                r"\bvideos?\b.{0,80}\b(?:hangs?|stuck|never (?:answers?|returns?|finish\w*)|no (?:answer|response)"
                r"|timed? ?out|ram grows|memory grows)\b"
                r"|\b(?:hangs?|stuck)\b.{0,40}\bvideos?\b"
            ),
        ),
        "decord hangs, or torchvision decodes the whole clip into host memory",
        'FORCE_QWENVL_VIDEO_READER=torchcodec; a few frames instead of the clip (--media-io-kwargs \'{{"video":'
        ' {{"num_frames": 32}}}}\'), VLLM_VIDEO_FETCH_TIMEOUT=30, --limit-mm-per-prompt \'{{"video": 0}}\' where'
        " nobody needs it",
        ("QwenLM/Qwen3-VL#1064", "QwenLM/Qwen3-VL#736", "QwenLM/Qwen3-VL#1892", "vllm-project/vllm#16293"),
        FailureKind.REQUEST,
    ),
    _symptom(
        "jpeg-larger-than-png",
        "Q54",
        (
            phrase(
                r"\bjpe?g\b.{0,80}(?:\boom\b|out of memory|memory|fail|显存).{0,200}\bpng\b"
                r"|\bpng\b.{0,60}\bjpe?g\b.{0,60}(?:\boom\b|out of memory|fail)"
            ),
        ),
        "the two files are of different size in pixels, or the JPEG is turned by its EXIF tag; nothing caps the pixels",
        f"compare width x height of both; --mm-processor-kwargs '{{{{\"max_pixels\": {MODEST_PIXELS}}}}}', or fit"
        " the image first",
        ("xorbitsai/inference#3230",),
        FailureKind.REQUEST,
    ),
    _symptom(
        "engines-answer-differently",
        "Q55",
        (
            phrase(
                r"\b(?:hf|transformers|hugging ?face)\b.{0,80}\bvllm\b.{0,80}\b(?:differ\w*|better|worse"
                r"|inconsisten\w*|not the same)\b"
                r"|\bvllm\b.{0,80}\b(?:hf|transformers|hugging ?face)\b.{0,80}\b(?:differ\w*|better|worse"
                r"|inconsisten\w*|not the same)\b"
                r"|\b(?:differ\w*|inconsisten\w*|better|worse)\b.{0,60}\bvllm\b.{0,40}\b(?:hf|transformers"
                r"|hugging ?face)\b"
            ),
        ),
        "the two see other pixels or sample in another way: max_pixels, system prompt, generation_config",
        "compare usage.prompt_tokens first (equal: same pixels and prompt), then temperature 0 and repetition_penalty"
        " 1.0 on both; greedy float32 answers of vLLM 0.32 and transformers are equal, token for token",
        ("QwenLM/Qwen3-VL#998", "QwenLM/Qwen3-VL#1396"),
        FailureKind.REQUEST,
    ),
)
