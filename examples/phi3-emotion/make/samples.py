"""Write the sample data that `drupe init` gives: the first rows of two of the phrase files.

Only the columns `phrase` and `tone` are kept, JSON LINES as in ``../dataset``.

Run ``python samples.py`` to write them into drupe's package.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

EXAMPLE = Path(__file__).parents[1]
PACKAGE_DATA = EXAMPLE.parents[1] / "src" / "drupe" / "templates" / "data"
COLUMNS = ("phrase", "tone")
# sample file -> (phrase file, rows)
SAMPLES = {
    "phrases.jsonl": ("dataset-classification.json", 200),
    "held-out.jsonl": ("heldout-classification.json", 100),
}


def sample(name: str) -> str:
    """Return the content of the sample file `name`."""
    source, count = SAMPLES[name]
    lines = (EXAMPLE / "dataset" / source).read_text(encoding="utf-8").splitlines()[:count]
    rows = ({column: json.loads(line)[column] for column in COLUMNS} for line in lines)
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def main() -> None:
    """Write the sample files into the folder that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=PACKAGE_DATA, help="where to write")
    folder = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    for name in SAMPLES:
        (folder / name).write_text(sample(name), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
