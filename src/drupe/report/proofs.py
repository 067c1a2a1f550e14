"""A proof in words: what was compared, what came out, what was allowed."""

from __future__ import annotations

import json
from typing import Any

from drupe.outcome import Score
from drupe.report.layers import SHOWN
from drupe.report.words import percent


def standing(proof: Score) -> str:
    """Return whether it was proven: "proven", "not proven" (then `skipped` says why)."""
    return "proven" if proof.more.get("passed") is True else "not proven"


def sentences(proof: Score) -> str:
    """Return what a proof says; of one of a plug-in only its figures are known."""
    more = proof.more
    if proof.skipped is not None:
        return f"Not proven: {proof.skipped}."
    try:
        if proof.metric == "merge_proof":
            return (
                f"Element by element, the {more['layers']} merged weights are base + adapter, to "
                f"the rounding of the type they are stored in, and every other tensor has the "
                f"base's bytes. On {more['positions']} positions of probe text the logits are "
                f"{proof.value:.2g} (relative) from those of base + adapter, where "
                f"{more['bound']:.2g} is allowed and the adapter itself moves them by "
                f"{more['adapter_effect']:.2g}."
            )
        if proof.metric == "export_proof":
            rounding = more["rounding"]
            beside = f", of which rounding to {more['precision']} gives {rounding:.2g}"
            return (
                f"On {more['positions']} positions of probe text the logits of the exported model "
                f"are {proof.value:.2g} (relative) from the checkpoint's"
                f"{beside if rounding else ''}; {more['bound']:.2g} is allowed. The likeliest "
                f"token is the same at {percent(more['top1_agreement'])} of the positions."
                f"{_own(more)}"
            )
    except (KeyError, TypeError, ValueError):  # figures of another version
        pass
    return "What it compared is in its figures."


def _own(more: dict[str, Any]) -> str:
    """Return what is proven of a model besides where its layout is drupe's own."""
    if "arithmetic" not in more:
        return ""
    count = more["greedy_tokens"]  # none where no token led clearly
    tokens = f", and {count} greedy tokens are the same" if count else ""
    return (
        f" With the very weights of the file torch computes ONNX Runtime's logits to "
        f"{more['arithmetic']:.1g} ({more['arithmetic_bound']:.1g} is allowed){tokens}; each "
        "matrix of the file is the checkpoint's, as nearly as rounding to nearest would leave it."
    )


def figures(proof: Score) -> list[tuple[str, str]]:
    """Return each figure of a proof, by its name."""
    known = {"value": proof.value, **proof.more}
    return [
        (name.replace("_", " "), value_text(value))
        for name, value in known.items()
        if value is not None and name not in ("passed", "higher_is_better", *SHOWN)
    ]


def value_text(value: Any) -> str:
    """Return a JSON value as people read it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
