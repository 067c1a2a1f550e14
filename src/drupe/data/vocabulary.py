"""What a plan and a step tell of a token that the model has no embedding for.  Light."""

from __future__ import annotations


def without_embedding(token: int, written: str, size: int) -> tuple[str, str]:
    """Return what is wrong with a token of the data, and the remedy.

    token: its id. written: as the tokenizer writes it. size: how many embeddings the model has.
    """
    what = (
        f'gives the data the token {token} ("{written}"), but the model has embeddings for {size} '
        f"tokens, 0 to {size - 1}"
    )
    return what, "Take the model's own tokenizer, or remove the token that was added to it."
