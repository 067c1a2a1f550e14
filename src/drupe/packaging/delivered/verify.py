"""Check that this folder is whole, and answers here as it did where it was made.

    python verify.py [--provider cpu|cuda|dml|webgpu]

Compares with verify.json: the SHA-256 of each file, the ids of a few texts, the first greedy
tokens after a few prompts. Needs onnxruntime-genai and nothing else. Exits 1 if anything differs.
"""

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
GOLDEN: dict[str, Any] = json.loads((FOLDER / "verify.json").read_text(encoding="utf-8"))


def of_files() -> Iterator[str]:
    """Yield what is wrong with the files."""
    for name, expected in GOLDEN["files"].items():
        if not (FOLDER / name).is_file():
            yield f"{name}: is missing"
            continue
        digest = hashlib.sha256()
        with (FOLDER / name).open("rb") as file:
            while block := file.read(2**20):
                digest.update(block)
        if digest.hexdigest() != expected:
            yield f"{name}: SHA-256 is {digest.hexdigest()}, was {expected}"


def of_texts(runtime: Any, model: Any) -> Iterator[str]:
    """Yield which texts are cut into other tokens here."""
    tokenizer = runtime.Tokenizer(model)
    if hasattr(tokenizer, "update_options"):  # since 0.10
        tokenizer.update_options(add_special_tokens="true")
    for golden in GOLDEN["texts"]:
        ids = [int(token) for token in tokenizer.encode(golden["text"])]
        if ids != golden["ids"]:
            yield f"text {golden['text']!r}: ids are {ids}, were {golden['ids']}"


def of_tokens(runtime: Any, model: Any) -> Iterator[str]:
    """Yield after which prompts the model goes on otherwise."""
    for golden in GOLDEN["prompts"]:
        ids, expected = golden["ids"], golden["tokens"]
        parameters = runtime.GeneratorParams(model)
        most = len(ids) + max(1, len(expected))
        parameters.set_search_options(
            max_length=most, do_sample=False, num_beams=1, repetition_penalty=1.0
        )
        generator = runtime.Generator(model, parameters)
        generator.append_tokens(ids)
        tokens: list[int] = []
        while len(tokens) < len(expected) and not generator.is_done():
            generator.generate_next_token()
            tokens.append(int(generator.get_next_tokens()[0]))
        if tokens != expected:
            pairs = enumerate(zip(tokens, expected, strict=False))
            place = next((place for place, (one, other) in pairs if one != other), len(tokens))
            yield (
                f"prompt {golden['prompt']!r}: tokens are {tokens}, were {expected}; "
                f"the first that differs is number {place + 1}"
            )


def load(runtime: Any, provider: str | None) -> tuple[Any, str]:
    """Return the model, and the name of the provider that runs it."""
    settings = json.loads((FOLDER / "genai_config.json").read_text(encoding="utf-8"))
    options = settings["model"]["decoder"]["session_options"].get("provider_options") or []
    config = runtime.Config(str(FOLDER))
    if provider is not None:
        config.clear_providers()
        if provider != "cpu":
            config.append_provider(provider)
    own = next((name.lower() for option in options for name in option), "cpu")
    return runtime.Model(config), provider or own


def main() -> int:
    """Print OK, or all that differs; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--provider", help="run on this one, whatever genai_config.json says")
    arguments = parser.parse_args()
    faults, warnings, version = list(of_files()), [], "onnxruntime-genai was not run"
    if GOLDEN["provider"] is None:
        warnings.append(f"the files alone were compared: {GOLDEN['not_run']}")
    else:
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import: it sends usage otherwise
        try:
            import onnxruntime_genai

            version = f"onnxruntime-genai {onnxruntime_genai.__version__}"
            model, provider = load(onnxruntime_genai, arguments.provider)
            faults += of_texts(onnxruntime_genai, model)
            differing = list(of_tokens(onnxruntime_genai, model))
            if provider == GOLDEN["provider"]:
                faults += differing
            else:  # its kernels round otherwise: that may be no fault
                warnings += [f"{line} (on {GOLDEN['provider']})" for line in differing]
        except Exception as fault:  # whatever the runtime raises is what was found
            faults.append(f"does not run here: {type(fault).__name__}: {fault}")
    for line in warnings:
        print(f"warning: {line}")
    for line in faults:
        print(f"DIFFERS: {line}")
    if faults:
        made = ", ".join(f"{name} {number}" for name, number in GOLDEN["made_with"].items())
        print(f"Made with {made}; here: {version}, Python {sys.version.split()[0]}.")
        return 1
    counts = {name: len(GOLDEN[name]) for name in ("files", "texts", "prompts")}
    print("OK", ", ".join(f"{count} {name}" for name, count in counts.items()), f"({version})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
