"""The families of decoders that drupe exports itself, as data.  Light.

Each is a row of FAMILIES: what sets it apart from Llama. What a checkpoint's headers show (biases,
norms of queries and keys, joined matrices) is taken from them, not from here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from drupe.core.errors import Refused
from drupe.export.decoder import Activation, Decoder, Layer, Norms, Rotary

ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
}
# What each kind of scaling needs of config.json; of yarn the last four have defaults.
SCALING = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "yarn": ("factor", "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim"),
    "longrope": ("short_factor", "long_factor", "attention_factor", "factor"),
}
OPTIONAL = {"attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim"}
Config = Mapping[str, Any]


def _all(config: Config) -> list[int | None]:
    """Return the windows of a family whose layers all have one, or none."""
    return [config.get("sliding_window")] * config["num_hidden_layers"]


def _if_used(config: Config) -> list[int | None]:
    """Return the windows of Qwen: from `max_window_layers` on, if they are used at all."""
    count, window = config["num_hidden_layers"], config.get("sliding_window")
    used = bool(config.get("use_sliding_window")) and window is not None
    first = config.get("max_window_layers", 28)
    return [window if used and layer >= first else None for layer in range(count)]


def _every(pattern: int) -> Callable[[Config], list[int | None]]:
    """Return the rule of Gemma: each layer has a window but for every `pattern`-th."""

    def windows(config: Config) -> list[int | None]:
        asked = config.get("sliding_window_pattern") or config.get("_sliding_window_pattern")
        each = int(asked or pattern)
        count, window = config["num_hidden_layers"], config.get("sliding_window")
        return [None if (layer + 1) % each == 0 else window for layer in range(count)]

    return windows


def _none(config: Config) -> list[int | None]:
    return [None] * config["num_hidden_layers"]


@dataclass(frozen=True)
class Family:
    """How a family differs from Llama.

    type: its name in ONNX Runtime GenAI. windows: of each layer, where config.json has no
    `layer_types`. defaults: what transformers takes for a field that config.json leaves out.
    scales_embedding: by the root of the hidden size. local_rotary: layers with a window turn by
    angles of their own.
    """

    type: str
    windows: Callable[[Config], list[int | None]] = _none
    norms: Norms = "pre"
    norm_offset: float = 0.0
    scales_embedding: bool = False
    local_rotary: bool = False
    defaults: Config = field(default_factory=dict)


GEMMA: Config = {"head_dim": 256, "tie_word_embeddings": True}
GEMMA2: Config = {**GEMMA, "query_pre_attn_scalar": 256, "sliding_window": 4096}

FAMILIES: dict[str, Family] = {
    "LlamaForCausalLM": Family("llama"),
    "MistralForCausalLM": Family("mistral", _all),
    "Qwen2ForCausalLM": Family("qwen2", _if_used),
    "Qwen3ForCausalLM": Family("qwen3", _if_used, defaults={"head_dim": 128}),
    "Phi3ForCausalLM": Family("phi3", _all),
    "GemmaForCausalLM": Family("gemma", norm_offset=1.0, scales_embedding=True, defaults=GEMMA),
    "Gemma2ForCausalLM": Family(
        "gemma2",
        _every(2),
        norms="sandwich",
        norm_offset=1.0,
        scales_embedding=True,
        defaults={**GEMMA2, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
    ),
    "Gemma3ForCausalLM": Family(
        "gemma3_text",
        _every(6),
        norms="sandwich",
        norm_offset=1.0,
        scales_embedding=True,
        local_rotary=True,
        defaults={**GEMMA2, "rope_theta": 1e6, "rope_local_base_freq": 1e4},
    ),
    "SmolLM3ForCausalLM": Family(
        "smollm3",
        _if_used,
        defaults={
            "no_rope_layer_interval": 4,
            "tie_word_embeddings": True,
            "rope_theta": 2e6,
        },
    ),
    "GraniteForCausalLM": Family("granite"),
    "Olmo2ForCausalLM": Family("decoder", norms="post", defaults={"rms_norm_eps": 1e-5}),
}


def read_decoder(config: Config, where: str = "config.json") -> Decoder:
    """Return the decoder that a config.json describes.

    Raises Refused, with the place `where`, for a family that is not in the table and for what
    the numbers cannot be.
    """
    name = architecture(config)
    family = FAMILIES.get(name)
    if family is None:
        raise Refused(
            where, f"is of {name}, which is not in the table", f"Known: {', '.join(FAMILIES)}."
        )
    config = {**family.defaults, **config}
    missing = [key for key in NEEDED if not isinstance(config.get(key), int)]
    if missing:
        raise Refused(where, f"has no number {missing[0]}", "Give the config.json of the model.")
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    head_size = config.get("head_dim") or hidden // heads
    windows = _windows(config, family)
    rotaries = _rotaries(config, family, head_size, where)
    scalar = config.get("query_pre_attn_scalar")
    return Decoder(
        type=family.type,
        vocabulary=config["vocab_size"],
        hidden=hidden,
        intermediate=config["intermediate_size"],
        heads=heads,
        key_value_heads=config.get("num_key_value_heads") or heads,
        head_size=head_size,
        context=config["max_position_embeddings"],
        layers=tuple(
            Layer(_rotary(config, index, window, rotaries), window)
            for index, window in enumerate(windows)
        ),
        rotaries=rotaries,
        epsilon=_number(config, "rms_norm_eps", 1e-6),
        activation=_activation(config, where),
        tied=bool(config.get("tie_word_embeddings", False)),
        norms=family.norms,
        norm_offset=family.norm_offset,
        embedding_factor=math.sqrt(hidden)
        if family.scales_embedding
        else _number(config, "embedding_multiplier", 1.0),
        branch_factor=_number(config, "residual_multiplier", 1.0),
        logits_factor=1.0 / _number(config, "logits_scaling", 1.0),
        attention_scale=_number(config, "attention_multiplier", (scalar or head_size) ** -0.5),
        attention_cap=_number(config, "attn_logit_softcapping", 0.0),
        logits_cap=_number(config, "final_logit_softcapping", 0.0),
    )


NEEDED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
)


def architecture(config: Config) -> str:
    """Return the class that config.json names first; "" where it names none."""
    names = config.get("architectures") or [""]
    return str(names[0])


# The number of experts in a layer, as configs spell it: Mixtral and Llama 4, Qwen, DeepSeek, ERNIE
# and DBRX. One that is null, 0 or 1 is of a dense member of a family that has mixtures too.
EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
# Sections of a config.json that may hold it: of text beside images, of DBRX's layers.
SECTIONS = ("text_config", "ffn_config")


def mixture_of_experts(config: Config) -> str:
    """Return "a mixture of experts (8 in a layer)" for one; "" for a dense model."""
    inner = (config.get(section) for section in SECTIONS)
    told = [config, *(each for each in inner if isinstance(each, Mapping))]
    values = (each.get(key) for each in told for key in EXPERTS)
    counts = [value for value in values if type(value) is int]
    if max(counts, default=0) > 1:
        return f"a mixture of experts ({max(counts)} in a layer)"
    name = architecture(config).lower()
    by_name = not counts and ("moe" in name or "mixtral" in name)
    return "a mixture of experts" if by_name else ""


def _number(config: Config, key: str, default: float) -> float:
    value = config.get(key)
    return default if value is None else float(value)


def _activation(config: Config, where: str) -> Activation:
    name = str(config.get("hidden_activation") or config.get("hidden_act") or "silu")
    if name not in ACTIVATIONS:
        raise Refused(
            where,
            f'has the activation "{name}"; drupe exports {", ".join(ACTIVATIONS)}',
            'Set "exporter": "genai".',
        )
    return ACTIVATIONS[name]


def _windows(config: Config, family: Family) -> list[int | None]:
    kinds = config.get("layer_types")
    if not kinds:
        return family.windows(config)
    window = config.get("sliding_window")
    return [window if kind == "sliding_attention" else None for kind in kinds]


def _rotary(
    config: Config, index: int, window: int | None, rotaries: Mapping[str, Rotary]
) -> str | None:
    """Return the name of the table by which a layer turns its heads."""
    turned = config.get("no_rope_layers")  # 1 for a layer that turns, whatever the name says
    interval = config.get("no_rope_layer_interval")
    if turned is not None and not turned[index]:
        return None
    if turned is None and interval and (index + 1) % int(interval) == 0:
        return None
    return "local" if window is not None and "local" in rotaries else "global"


def _rotaries(config: Config, family: Family, head_size: int, where: str) -> dict[str, Rotary]:
    """Return the tables of angles; `rope_parameters` is how transformers 5 writes them."""
    given = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if "full_attention" in given:
        named = {"global": given["full_attention"], "local": given.get("sliding_attention")}
    else:
        named = {"global": {"rope_theta": config.get("rope_theta", 10000.0), **given}}
        if family.local_rotary:
            named["local"] = {"rope_theta": config["rope_local_base_freq"]}
    return {
        name: _rotary_table(config, each, head_size, where) for name, each in named.items() if each
    }


def _rotary_table(config: Config, given: Config, head_size: int, where: str) -> Rotary:
    kind = str(given.get("rope_type") or given.get("type") or "default")
    kind = "longrope" if kind == "su" else kind
    if kind not in SCALING:
        raise Refused(
            where,
            f'scales its rotary embedding by "{kind}"; drupe knows {", ".join(SCALING)}',
            'Set "exporter": "genai".',
        )
    context = config["max_position_embeddings"]
    original = (
        given.get("original_max_position_embeddings")
        or config.get("original_max_position_embeddings")
        or context
    )
    values = {key: given[key] for key in SCALING[kind] if given.get(key) is not None}
    if kind == "longrope" and "factor" not in values:
        values["factor"] = context / original
    missing = [key for key in SCALING[kind] if key not in values and key not in OPTIONAL]
    if missing:
        raise Refused(
            where,
            f'has a rotary embedding of the type "{kind}" without {missing[0]}',
            "Give the config.json as its publisher has it.",
        )
    part = given.get("partial_rotary_factor") or config.get("partial_rotary_factor") or 1.0
    return Rotary(
        size=int(head_size * part),
        theta=float(given.get("rope_theta") or config.get("rope_theta", 10000.0)),
        positions=context,
        kind=kind,
        scaling=tuple(
            (key, tuple(map(float, each)) if isinstance(each, list) else float(each))
            for key, each in values.items()
        ),
        original=int(original),
    )
