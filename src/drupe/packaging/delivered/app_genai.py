"""Answer a prompt with the model beside this file; needs onnxruntime-genai and nothing else.

python app.py "PROMPT"        or a prompt a line on the standard input
"""

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when the runtime is loaded

import onnxruntime_genai

HERE = Path(__file__).resolve().parent
FOLDERS = (HERE / "model", HERE / "mlflow_model" / "data" / "model")
NEW_TOKENS = 256


def main() -> None:
    """Answer the words of the command line, or each line of the standard input."""
    folder = next(folder for folder in FOLDERS if folder.is_dir())
    context = json.loads((folder / "genai_config.json").read_text())["model"]["context_length"]
    has_template = (folder / "chat_template.jinja").is_file()
    model = onnxruntime_genai.Model(str(folder))
    tokenizer = onnxruntime_genai.Tokenizer(model)
    # A chat template writes the begin of text itself; plain text is begun as in training.
    tokenizer.update_options(add_special_tokens="false" if has_template else "true")
    for prompt in [" ".join(sys.argv[1:])] if sys.argv[1:] else sys.stdin:
        text = prompt.rstrip("\n")
        if has_template:
            messages = json.dumps([{"role": "user", "content": text}])
            text = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
        ids = tokenizer.encode(text)
        parameters = onnxruntime_genai.GeneratorParams(model)
        parameters.set_search_options(max_length=min(context, len(ids) + NEW_TOKENS))
        generator = onnxruntime_genai.Generator(model, parameters)
        generator.append_tokens(ids)
        pieces = tokenizer.create_stream()
        while not generator.is_done():
            generator.generate_next_token()
            token = generator.get_next_tokens()[0]
            if token not in tokenizer.eos_token_ids:
                print(pieces.decode(token), end="", flush=True)
        print()


if __name__ == "__main__":
    main()
