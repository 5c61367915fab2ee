"""A Qwen-VL model in torch: loaded with checks, asked for vision embeddings and next-token logits."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from vlfleet.checkpoint import CheckpointInfo
from vlfleet.engine.embedded.kv import BatchCache
from vlfleet.engine.embedded.preprocess import Medium
from vlfleet.engine.embedded.spread import spread
from vlfleet.errors import ExitCode, VlfleetError

if TYPE_CHECKING:
    from vlfleet.engine.embedded.args import EngineArgs

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Model:
    """The vision tower, the language model and its head, called one by one so that each runs only when it must."""

    def __init__(self, info: CheckpointInfo, args: EngineArgs) -> None:
        """Load `info` as `args` say.

        Raises:
            VlfleetError: a tensor is missing, has the wrong shape, or holds NaN or Inf.
        """
        self.info = info
        self._whole: Any = load(info, args)
        self._text = self._whole.model.language_model
        self._visual = self._whole.model.visual
        self._layer_types = set(getattr(self._text.config, "layer_types", None) or ["full_attention"])
        if "sliding_attention" in self._layer_types:
            raise VlfleetError("use_sliding_window is true in config.json", "set it to false, or serve it with vLLM")
        attention = str(self._text.config._attn_implementation)
        self._flash, self._eager = "flash" in attention, attention == "eager"
        self.device: torch.device = self._text.embed_tokens.weight.device
        self.dtype: torch.dtype = self._text.embed_tokens.weight.dtype
        self.hidden_size = int(self._text.config.hidden_size)
        self.tokens_per_second = float(getattr(self._whole.config.vision_config, "tokens_per_second", 0) or 0)

    @property
    def layer_devices(self) -> list[str]:
        """Where each layer's keys and values lie; weights that were left on disk are computed with on `device`."""
        weights = [next(layer.parameters()) for layer in self._text.layers]
        return [str(self.device if weight.is_meta else weight.device) for weight in weights]

    @property
    def kv_bytes_per_token(self) -> int:
        """Of keys and values in all layers."""
        config = self._text.config
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return int(2 * config.num_hidden_layers * config.num_key_value_heads * head_dim * self.dtype.itemsize)

    @torch.inference_mode()
    def see(self, medium: Medium) -> torch.Tensor:
        """Vision embeddings of one medium: (visual tokens, hidden_size)."""
        pixels = torch.from_numpy(medium.pixel_values).to(self._visual.device, self.dtype)
        grid = torch.tensor([medium.grid], device=pixels.device)
        out: torch.Tensor = self._visual(pixels, grid_thw=grid).pooler_output
        return out.to(self.device)

    @torch.inference_mode()
    def prefill(
        self,
        tokens: list[int],
        media: Sequence[tuple[int, torch.Tensor]],
        positions: list[list[int]],
        cache: BatchCache,
    ) -> torch.Tensor:
        """Read one prompt into a new row of `cache`.

        `media` are (index of the first placeholder, embeddings); `positions` (3, tokens) from `mrope_positions`.
        Returns the logits of the last token only: (vocab_size,). For 16,384 tokens of a 152k vocabulary all of them
        would take 10 GB.
        """
        embeds = self._text.embed_tokens(torch.tensor([tokens], device=self.device))
        for start, seen in media:
            embeds[0, start : start + len(seen)] = seen
        cache.begin_prefill(len(tokens))
        hidden = self._forward(embeds, torch.tensor(positions)[:, None], None, cache)
        return self._logits(hidden[0, -1])

    @torch.inference_mode()
    def decode(self, tokens: list[int], positions: list[int], cache: BatchCache) -> torch.Tensor:
        """Append one token to each row of `cache`. Returns (rows, vocab_size)."""
        embeds = self._text.embed_tokens(torch.tensor(tokens, device=self.device)[:, None])
        cache.begin_decode()
        mask = cache.mask(self.device)
        at = torch.tensor(positions)[None, :, None].expand(3, -1, -1)
        hidden = self._forward(embeds, at, mask if self._flash else mask[:, None, None], cache)
        return self._logits(hidden[:, -1])

    def _forward(
        self, embeds: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor | None, cache: BatchCache
    ) -> torch.Tensor:
        """A ready mask (None: causal) by layer type makes transformers build none of its own."""
        if self._eager:  # adds its mask to the scores, and knows no causal one by itself
            length = embeds.shape[1]
            if mask is None:
                mask = torch.ones(length, length, dtype=torch.bool, device=embeds.device).tril()[None, None]
            mask = torch.where(mask, 0.0, torch.finfo(embeds.dtype).min).to(embeds.dtype)
        out = self._text(
            inputs_embeds=embeds,
            position_ids=positions.to(self.device),
            attention_mask=dict.fromkeys(self._layer_types, mask),
            past_key_values=cache,
            use_cache=True,
        )
        hidden: torch.Tensor = out.last_hidden_state
        return hidden

    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        head = self._whole.lm_head
        logits: torch.Tensor = head(hidden.to(head.weight.device)).float()
        return logits


def load(info: CheckpointInfo, args: EngineArgs) -> Any:
    """The model of `info` in evaluation mode, every parameter present and finite.

    Raises:
        VlfleetError: see `Model`.
    """
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    model_class = getattr(transformers, info.family.architecture)
    options: dict[str, Any] = {"dtype": choose_dtype(info, args.dtype), "attn_implementation": args.attn_implementation}
    device_map = _device_map(info, args, options["dtype"])
    if device_map:
        options["device_map"] = device_map
        if args.max_memory:
            options["max_memory"] = args.max_memory
    try:
        model, report = model_class.from_pretrained(
            info.path, local_files_only=True, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )
        if not device_map and torch.cuda.is_available():
            model = model.to("cuda")
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise _no_memory(info, error) from None
    except Exception as error:  # ValueError, ImportError, KeyError, SafetensorError, StrictDataclassError, ...
        if "allocate memory" in str(error):
            raise _no_memory(info, error) from None
        traceback.print_exception(error)
        raise VlfleetError(f"transformers cannot load {info.path.name}: {_first_line(error)}", "see the log") from None
    if missing := sorted(report["missing_keys"]):
        cause = f"{info.path.name} lacks tensor {missing[0]} ({len(missing)} missing)"
        raise VlfleetError(cause, "download the checkpoint again")
    if wrong := sorted(report["mismatched_keys"]):
        name, found, wanted = wrong[0]
        cause = f"tensor {name} has shape {list(found)}, config.json asks for {list(wanted)}"
        raise VlfleetError(cause, "take config.json and the weights from one place")
    model.eval()
    for name, parameter in model.named_parameters():
        if parameter.is_meta:  # --device-map left it on disk
            continue
        if parameter.is_floating_point() and not _finite(parameter):
            raise VlfleetError(f"tensor {name} holds NaN or Inf", "download the checkpoint again, or convert it anew")
    return model


def _finite(tensor: torch.Tensor) -> bool:
    """Whether nothing is NaN or Inf. isfinite().all() takes twice the tensor: 2 GB of a 7B's first GPU."""
    return bool(torch.isfinite(torch.stack(tensor.aminmax())).all())


def _device_map(info: CheckpointInfo, args: EngineArgs, dtype: torch.dtype) -> Any:
    """What was asked for; "auto" is the same as nothing where there are several GPUs: our own map, not accelerate's.

    Raises:
        VlfleetError: it does not fit on all GPUs.
    """
    gpus = torch.cuda.device_count()
    if args.device_map not in (None, "auto") or args.max_memory or gpus < 2:
        return args.device_map
    free = [int(torch.cuda.mem_get_info(gpu)[0]) for gpu in range(gpus)]
    return spread(info, args, free, dtype.itemsize)


def choose_dtype(info: CheckpointInfo, dtype: str) -> torch.dtype:
    """`auto` is the checkpoint's own on a GPU and float32 on a CPU, where bfloat16 arithmetic is emulated or slower."""
    if dtype != "auto":
        return DTYPES[dtype]
    own = {"BF16": torch.bfloat16, "F16": torch.float16}.get(info.dtype, torch.float32)
    return own if torch.cuda.is_available() else torch.float32


def _no_memory(info: CheckpointInfo, error: Exception) -> VlfleetError:
    cause = f"there is no memory to load {info.path.name}: {_first_line(error)}"
    return VlfleetError(cause, "use --dtype bfloat16, fewer replicas, or a GPU", ExitCode.DOES_NOT_FIT)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
