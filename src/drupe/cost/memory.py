"""The most memory that a process holds which answers by an export, by a formula.  Light.

Measured with ONNX Runtime 1.31 and GenAI 0.18 on x86-64: weights are laid out anew for the kernels
and held beside their file, which stays mapped. Products in 8-bit integers (accuracy level 4) hold
codes, scales and the sum of each block; others leave the scales where they are. The table of
tokens is read from the mapped file. The logits of the whole prompt are there at once.
"""

from __future__ import annotations

from drupe.cost.bill import Bill, Product

# Python with ONNX Runtime GenAI, a session with no weights in it, and its first answer.
PROCESS = 29 * 10**6
IN_INTEGERS = 4  # the accuracy level
FLOAT = 4


def memory_bytes(bill: Bill, prompt_length: int, new_tokens: int) -> tuple[int, str]:
    """Return the bytes for one prompt and its answer, and in a line of what they are made."""
    parts = {
        "weights": sum(count * held_bytes(each) for each, count in bill.products.items()),
        "caches": bill.cache_bytes * (prompt_length + new_tokens),
        "logits": FLOAT * bill.vocabulary * prompt_length,
        "activations": 2 * FLOAT * prompt_length * (2 * bill.hidden + 3 * bill.intermediate),
        "the process": PROCESS,
    }
    told = ", ".join(f"{name} {size / 1e6:.3g} MB" for name, size in parts.items())
    return sum(parts.values()), f"memory: {told}"


def held_bytes(product: Product) -> int:
    """Return what the weights of a product take in memory."""
    if not product.bits:
        return product.weight_bytes
    blocks = product.rows * -(-product.columns // product.block_size)
    if product.level == IN_INTEGERS:
        return product.weight_bytes + FLOAT * blocks
    return blocks * product.block_size * product.bits // 8
