"""Answer a prompt with the model beside this file; needs torch and transformers.

python app.py "PROMPT"        or a prompt a line on the standard input
"""

import sys
from pathlib import Path

import transformers

HERE = Path(__file__).resolve().parent
FOLDERS = (HERE / "model", HERE / "mlflow_model" / "data" / "model")
NEW_TOKENS = 256


def main() -> None:
    """Answer the words of the command line, or each line of the standard input."""
    folder = next(folder for folder in FOLDERS if folder.is_dir())
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    for prompt in [" ".join(sys.argv[1:])] if sys.argv[1:] else sys.stdin:
        text = prompt.rstrip("\n")
        if tokenizer.chat_template:
            messages = [{"role": "user", "content": text}]
            text = tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
        ids = tokenizer(text, return_tensors="pt", add_special_tokens=not tokenizer.chat_template)[
            "input_ids"
        ]
        answer = model.generate(ids, max_new_tokens=NEW_TOKENS)[0, ids.shape[1] :]
        print(tokenizer.decode(answer, skip_special_tokens=True))


if __name__ == "__main__":
    main()
