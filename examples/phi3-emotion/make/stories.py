"""Generate the mini-stories that the tiny model is pre-trained on.

A story is a few sentences in which causes, feelings, reactions and consequences agree in feeling.
No story carries a label, and none contains the words joy, sadness, fear or surprise. Some stories
are written as a notebook page with ``###`` headings, so that the model learns that layout too.

Run ``python stories.py --count 20`` to print stories.
"""

from __future__ import annotations

import argparse
import random
import re
from collections.abc import Iterator

from lexicon import CLOSINGS, ENTRIES, NAMES, PLACES, TIMES, TONES, WOMEN

STORY_COUNT = 60_000
STORY_SEED = 11
TONE_WORD = re.compile(r"\b(?:" + "|".join(TONES) + r")\b", re.IGNORECASE)

OPENINGS: tuple[str, ...] = (
    "{Time}, {who} was {place}.", "{Who} had a plan for the day.",
    "It was an ordinary day {place}.",
    "{Who} met {other} {place}.", "{Time} the bus was late and {other} was with {whom}.",
    "{Who} wrote this in the diary.", "This is what {who} told {other}.",
    "{Time}, {who} read the paper.", "{Who} lived {place} with {other}.",
    "The tone of the old bell rang {place}.", "{Who} and {other} were talking {place}.",
    "Once upon a time, {who} lived {place}.", "{Other} asked: how was your day?",
)  # fmt: skip
EVENT_FORMS: tuple[str, ...] = (
    "{Event}.", "{Time}, {event}.", "{Who} saw that {event}.", "{Who} heard that {event}.",
    "It began when {event}.", "Nobody forgot how {event}.", "{Other} said that {event}.",
    "{Event} {place}.", "Then {event}.", "In the story, {event}.", "The paper wrote that {event}.",
    "{Who} remembered the day when {event}.", "Just then, {event}.", "All at once {event}!",
)  # fmt: skip
THING_FORMS: tuple[str, ...] = (
    "{Who} thought about {thing}.", "There was talk of {thing}.", "Then came {thing}.",
    "All of this was because of {thing}.", "{Thing} was on the mind of {whom}.",
    "{Who} told {other} about {thing}.", "{Time}, it was all about {thing}.",
    "{Who} could not forget {thing}.", "It was {thing}.", "{Who} wrote about {thing}.",
    "First there was {thing}, then {thing2}.", "{Thing} came up again.",
)  # fmt: skip
FEELING_FORMS: tuple[str, ...] = (
    "{Who} was {feeling}.", "{Who} felt {feeling} and {feeling2}.", "It made {whom} {feeling}.",
    "{Who} looked {feeling}.", "{Who} became {feeling}.", "That left {whom} {feeling}.",
    "{Other} was {feeling} too.", "So {feeling} was {who}!", "{Who} seemed {feeling}.",
    "{Who} grew more and more {feeling}.", "Everyone there was {feeling}.", "How {feeling}!",
    "{Who} had never been so {feeling}.", "\"I am {feeling},\" said {who}.",
)  # fmt: skip
REACTION_FORMS: tuple[str, ...] = (
    "{Who} {reaction}.", "At once {who} {reaction}.", "{Who} {reaction} and {reaction2}.",
    "{Other} {reaction} too.", "And {who} {reaction}.", "That is why {who} {reaction}.",
    "Everyone {reaction}.", "{Time}, {who} {reaction}.", "{Who} only {reaction}.",
)  # fmt: skip
MIXED_FORMS: tuple[str, ...] = (
    "When {event}, {who} {reaction}.", "{Who} was {feeling} because {event}.",
    "{Event}, so {who} {reaction}.", "{Who} was {feeling} and {reaction}.",
    "{Thing} made {whom} {feeling}.", "{Who} {reaction} because of {thing}.",
    "After {thing}, {who} was {feeling}.", "{Who} saw {thing} and {reaction}.",
    "{Event} and {event2}.", "Because {event}, {who} felt {feeling}.",
    "With {thing} so near, {who} {reaction}.", "{Who}, who was {feeling}, {reaction}.",
)  # fmt: skip
HEADINGS: tuple[str, ...] = (
    "The next line is", "What came next", "It went on", "The answer is", "The end is",
    "The rest of the text is", "And then", "The last line is",
)  # fmt: skip


def capitalised(text: str) -> str:
    """Return the text with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def pronoun_pair(name: str) -> tuple[str, str]:
    """Return the subject and object pronouns that go with a name (or with ``I``)."""
    if name == "I":
        return "I", "me"
    return ("she", "her") if name in WOMEN else ("he", "him")


def fill(form: str, tone: str, name: str, generator: random.Random) -> str:
    """Fill a sentence form with entries of one feeling around the person ``name``."""
    subject, objective = pronoun_pair(name)
    who = name if generator.random() < 0.5 else subject
    feelings = generator.sample(ENTRIES[tone]["feelings"], 2)
    reactions = generator.sample(ENTRIES[tone]["reactions"], 2)
    events = generator.sample(ENTRIES[tone]["events"], 2)
    things = generator.sample(ENTRIES[tone]["things"], 2)
    other = generator.choice([candidate for candidate in NAMES if candidate != name])
    time = generator.choice(TIMES)
    return form.format(
        who=who,
        Who=capitalised(who),
        whom=objective,
        other=other,
        Other=other,
        time=time,
        Time=capitalised(time),
        place=generator.choice(PLACES),
        feeling=feelings[0],
        feeling2=feelings[1],
        reaction=reactions[0],
        reaction2=reactions[1],
        event=events[0],
        Event=capitalised(events[0]),
        event2=events[1],
        thing=things[0],
        Thing=capitalised(things[0]),
        thing2=things[1],
    )


def body_sentences(tone: str, name: str, generator: random.Random) -> list[str]:
    """Return three to five sentences of one feeling, in a mixed order."""
    pools = [EVENT_FORMS, THING_FORMS, FEELING_FORMS, REACTION_FORMS, MIXED_FORMS, MIXED_FORMS]
    chosen = generator.sample(pools, generator.randint(3, 5))
    sentences = [fill(generator.choice(pool), tone, name, generator) for pool in chosen]
    if generator.random() < 0.3:
        sentences.append(generator.choice(CLOSINGS[tone]))
    return sentences


def plain_story(tone: str, name: str, generator: random.Random) -> str:
    """Return a story as one paragraph, half of the time with a neutral opening."""
    sentences = body_sentences(tone, name, generator)
    if generator.random() < 0.5:
        sentences.insert(0, fill(generator.choice(OPENINGS), tone, name, generator))
    return " ".join(sentences)


def notebook_story(tone: str, name: str, generator: random.Random) -> str:
    """Return a story as a notebook page: a text, a heading, and how the story continues."""
    sentences = body_sentences(tone, name, generator)
    cut = generator.randint(1, 2)
    text, rest = " ".join(sentences[:cut]), " ".join(sentences[cut:])
    if generator.random() < 0.4:
        rest = generator.choice(ENTRIES[tone][generator.choice(("feelings", "reactions"))])
    return f"### Text: {text}\n### {generator.choice(HEADINGS)}:\n{rest}"


def stories(count: int = STORY_COUNT, seed: int = STORY_SEED) -> Iterator[str]:
    """Yield ``count`` stories; the same seed always gives the same stories."""
    generator = random.Random(seed)
    for _ in range(count):
        tone = generator.choice(TONES)
        name = "I" if generator.random() < 0.25 else generator.choice(NAMES)
        write = notebook_story if generator.random() < 0.4 else plain_story
        story = write(tone, name, generator)
        if TONE_WORD.search(story):
            raise ValueError(f"A story contains a tone word: {story!r}")
        yield story


def main() -> None:
    """Print stories."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20, help="how many stories to print")
    parser.add_argument("--seed", type=int, default=STORY_SEED, help="seed of the generator")
    arguments = parser.parse_args()
    for story in stories(arguments.count, arguments.seed):
        print(story, end="\n\n")


if __name__ == "__main__":
    main()
