"""Write the labelled phrases: the training file and the two held-out files.

* ``dataset-classification.json``: training phrases (seen patterns, seen words);
* ``heldout-classification.json``: held-out patterns with held-out words;
* ``heldout-patterns.json``: held-out patterns with seen words.

All three are JSON LINES (one object a line). The word split is that of ``lexicon.py``.

Run ``python phrases.py`` to write them into ``../dataset``.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterable
from pathlib import Path

from lexicon import KINDS, NAMES, TIMES, TONES, Lexicon, content_stems, split_entries
from stories import TONE_WORD, capitalised, pronoun_pair

PHRASE_SEED = 23
TRAINING_PER_TONE = 400
HELD_OUT_PER_TONE = 150
HELD_OUT_PATTERNS_PER_TONE = 100
Row = dict[str, str]

SEEN_PATTERNS: dict[str, str] = {
    "when": "{Who} was {feelings} when {events}.",
    "and": "{Events}, and {who} {reactions}.",
    "because": "{Who} {reactions} because {events}.",
    "about": "{Who} felt {feelings} about {things}.",
    "after": "After {things}, {who} {reactions}.",
    "so": "{Time}, {events}, so {who} was {feelings}.",
    "made": "{Things} made {whom} {feelings}.",
    "thought": "{Who} {reactions} at the thought of {things}.",
    "never": "{Time} {who} was more {feelings} than ever before.",
    "left": "It was {things} that left {whom} {feelings}.",
    "while": "{Time}, {who} {reactions} for quite a while.",
    "only": "{Time} {who} could only think of {things}.",
    "front": "Then {events}, right in front of {whom}.",
    "soon": "As soon as {events}, {who} {reactions}.",
    "looked": "{Who} looked {feelings} and {reactions}.",
    "cause": "{Time} {who} was {feelings}, all because of {things}.",
    "radio": "{Time}, the radio reported that {events}.",
    "guess": "Guess what happened to {whom} {time}: {events}!",
}
HELD_OUT_PATTERNS: dict[str, str] = {
    "wonder": "No wonder {who} seemed {feelings}: {events}.",
    "book": "{Who} read a page about {things} and {reactions}.",
    "neighbours": "{Who} told the neighbours how {events}.",
    "whenever": "Whenever {who} remembered {things}, {who2} grew {feelings}.",
    "semicolon": "{Who} {reactions}; you see, {events}.",
    "looking": "Looking back at {things}, {who} {reactions} once more.",
    "diary": "The diary of {time} holds a single line: {events}.",
    "mind": "With {things} in mind, {who} became {feelings}.",
    "what": "What a story: first {events}, then {who} {reactions}!",
    "question": "Do you know why {who} sounded so {feelings} at dinner {time}?",
    "nobody": "Nobody else {reactions} {time}, but {who} certainly did, thanks to {things}.",
    "balcony": "From the balcony {who} noticed that {events}.",
}


def fill_pattern(pattern: str, entries: dict[str, list[str]], generator: random.Random) -> Row:
    """Fill a pattern with one feeling's entries; return the phrase and the entries used."""
    name = "I" if generator.random() < 0.35 else generator.choice(NAMES)
    subject, objective = pronoun_pair(name)
    start = name if generator.random() < 0.5 else subject
    time = generator.choice(TIMES)
    chosen = {kind: generator.choice(entries[kind]) for kind in KINDS}
    slots = {"who": start, "who2": subject, "whom": objective, "time": time, **chosen}
    slots |= {capitalised(slot): capitalised(text) for slot, text in slots.items()}
    used = [chosen[kind] for kind in KINDS if "{" + kind in pattern.lower()]
    return {"phrase": pattern.format(**slots), "word": " | ".join(used)}


def phrase_rows(
    patterns: dict[str, str],
    lexicon: Lexicon,
    per_tone: int,
    taken: set[str],
    generator: random.Random,
) -> list[Row]:
    """Return ``per_tone`` new phrases for each tone, in a shuffled order, patterns in turn."""
    rows: list[Row] = []
    for tone in TONES:
        names = list(patterns)
        count = 0
        while count < per_tone:
            pattern = names[count % len(names)]
            row = fill_pattern(patterns[pattern], lexicon[tone], generator)
            if row["phrase"] in taken:
                continue
            taken.add(row["phrase"])
            rows.append({"phrase": row["phrase"], "tone": tone, "pattern": pattern} | row)
            count += 1
    generator.shuffle(rows)
    return rows


def check_rows(training: list[Row], held_out: list[Row]) -> None:
    """Raise if a phrase holds a tone word or a held-out content word occurs in training."""
    for row in (*training, *held_out):
        if TONE_WORD.search(row["phrase"]):
            raise ValueError(f"A phrase contains a tone word: {row['phrase']!r}")
    shown = set().union(*(content_stems(row["phrase"]) for row in training))
    for row in held_out:
        common = shown & content_stems(row["word"])
        if common:
            raise ValueError(f"Held-out words {sorted(common)} occur in the training phrases")


def write_rows(path: Path, rows: Iterable[Row], columns: tuple[str, ...]) -> None:
    """Write the named columns of the rows as JSON lines."""
    lines = [json.dumps({column: row[column] for column in columns}) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{path}: {len(lines)} phrases")


def write_all(folder: Path, seed: int = PHRASE_SEED) -> None:
    """Generate, check and write the three files."""
    generator = random.Random(seed)
    seen, held_out = split_entries()
    taken: set[str] = set()
    training = phrase_rows(SEEN_PATTERNS, seen, TRAINING_PER_TONE, taken, generator)
    unseen = phrase_rows(HELD_OUT_PATTERNS, held_out, HELD_OUT_PER_TONE, taken, generator)
    patterns = phrase_rows(HELD_OUT_PATTERNS, seen, HELD_OUT_PATTERNS_PER_TONE, taken, generator)
    check_rows(training, unseen)
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(folder / "dataset-classification.json", training, ("phrase", "tone"))
    details = ("phrase", "tone", "pattern", "word")
    write_rows(folder / "heldout-classification.json", unseen, details)
    write_rows(folder / "heldout-patterns.json", patterns, details)


def main() -> None:
    """Write the phrase files."""
    parser = argparse.ArgumentParser(description=__doc__)
    default_folder = Path(__file__).resolve().parent.parent / "dataset"
    parser.add_argument("--folder", type=Path, default=default_folder, help="where to write")
    parser.add_argument("--seed", type=int, default=PHRASE_SEED, help="seed of the generator")
    arguments = parser.parse_args()
    write_all(arguments.folder, arguments.seed)


if __name__ == "__main__":
    main()
