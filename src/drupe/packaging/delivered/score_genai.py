"""Answer prompts on an endpoint of AzureML; needs onnxruntime-genai and nothing else.

online   {"prompt": "...", "max_new_tokens": 256}, or {"prompts": [...]} -> {"answers": [...]}
batch    files with a prompt a line -> a line of JSON for each
"""

import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when the runtime is loaded

import onnxruntime_genai

NEW_TOKENS = 256
LOADED: dict[str, Any] = {}


def init() -> None:
    """Load the model, once, before the first request."""
    place = Path(os.environ["AZUREML_MODEL_DIR"])
    folder = min(place.rglob("genai_config.json"), key=lambda file: len(file.parts)).parent
    model = onnxruntime_genai.Model(str(folder))
    tokenizer = onnxruntime_genai.Tokenizer(model)
    has_template = (folder / "chat_template.jinja").is_file()
    # A chat template writes the begin of text itself; plain text is begun as in training.
    tokenizer.update_options(add_special_tokens="false" if has_template else "true")
    config = json.loads((folder / "genai_config.json").read_text())
    LOADED.update(
        model=model,
        tokenizer=tokenizer,
        has_template=has_template,
        context=config["model"]["context_length"],
    )


def run(asked: Any) -> Any:
    """Answer a request (a text of JSON), or the files of a batch (a list of paths)."""
    if isinstance(asked, list):
        prompts = [line for file in asked for line in Path(file).read_text().splitlines() if line]
        return [json.dumps({"prompt": prompt, "answer": answer(prompt)}) for prompt in prompts]
    said = json.loads(asked)
    prompts = said["prompts"] if "prompts" in said else [said["prompt"]]
    return {"answers": [answer(prompt, said.get("max_new_tokens")) for prompt in prompts]}


def answer(prompt: str, new_tokens: int | None = None) -> str:
    """Return what the model writes behind a prompt."""
    tokenizer, text = LOADED["tokenizer"], prompt
    if LOADED["has_template"]:
        messages = json.dumps([{"role": "user", "content": prompt}])
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
    ids = tokenizer.encode(text)
    parameters = onnxruntime_genai.GeneratorParams(LOADED["model"])
    longest = min(LOADED["context"], len(ids) + (new_tokens or NEW_TOKENS))
    parameters.set_search_options(max_length=longest)
    generator = onnxruntime_genai.Generator(LOADED["model"], parameters)
    generator.append_tokens(ids)
    pieces, written = tokenizer.create_stream(), []
    while not generator.is_done():
        generator.generate_next_token()
        token = generator.get_next_tokens()[0]
        if token not in tokenizer.eos_token_ids:
            written.append(pieces.decode(token))
    return "".join(written)
