"""The words and events of the four feelings, and their split into seen and held-out ones.

Every entry is original. The stories (``stories.py``) use all entries; the training phrases
(``phrases.py``) use only the seen ones, the held-out phrases only the held-out ones. Two entries
that share a content word (compared by their first five letters, over all feelings and kinds)
always fall on the same side of the split, so no content word of a held-out entry is ever shown by
a training phrase.

None of the four tone words occurs in any entry.
"""

from __future__ import annotations

import random
import re

TONES: tuple[str, ...] = ("joy", "sadness", "fear", "surprise")
"""The four tone words, the answers of the task."""

KINDS: tuple[str, ...] = ("feelings", "reactions", "events", "things")
"""The kinds of entries: adjectives, past-tense verb phrases, past-tense clauses, noun phrases."""

STEM_LENGTH = 5
"""Words that agree in this many first letters count as the same word in the split."""

HELD_OUT_SHARE = 0.34
"""The share of entries (of each feeling and kind) that the held-out side aims at."""

Lexicon = dict[str, dict[str, list[str]]]

NAMES: tuple[str, ...] = (
    "Anna", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Henry", "Ida", "Jonas", "Kate",
    "Leo", "Mara", "Nils", "Olga", "Paul", "Rosa", "Sam", "Tara", "Victor",
)  # fmt: skip
WOMEN: frozenset[str] = frozenset(
    {"Anna", "Clara", "Emma", "Grace", "Ida", "Kate", "Mara", "Olga", "Rosa", "Tara"}
)
PLACES: tuple[str, ...] = (
    "in the village", "by the river", "at the market", "near the harbour", "on the hill",
    "in the city", "at the office", "in the library", "on the street", "in the yard",
)  # fmt: skip
TIMES: tuple[str, ...] = (
    "this morning", "last night", "yesterday", "on Monday", "on Sunday", "last week",
    "in the evening", "an hour ago", "at noon", "that afternoon", "in spring", "last winter",
)  # fmt: skip

ENTRIES: Lexicon = {
    "joy": {
        "feelings": [
            "happy", "glad", "delighted", "cheerful", "merry", "thrilled", "elated", "jolly",
            "pleased", "blissful", "radiant", "proud", "grateful", "jubilant", "upbeat",
            "ecstatic", "gleeful", "lighthearted", "content", "exultant",
        ],
        "reactions": [
            "laughed out loud", "danced around the kitchen", "smiled from ear to ear",
            "hummed a tune", "clapped both hands", "cheered loudly", "grinned all day",
            "skipped down the lane", "hugged everyone", "sang in the shower", "giggled",
            "beamed with pride", "twirled on tiptoe", "toasted the good luck",
            "bounced like a ball", "kissed the whole family", "celebrated until dawn",
            "waved both arms with delight",
        ],
        "events": [
            "the baby took its first steps", "the home team won the cup",
            "the puppy licked every hand", "the choir sang a lovely carol",
            "the sun came out after the rain", "the garden was full of roses",
            "the exam was passed with top marks", "the old friends met again",
            "the cake came fresh from the oven", "the bride kissed the groom",
            "the school gave out prizes", "the summer holiday began",
            "the kite soared over the beach", "the grandparents arrived with gifts",
            "the patient was healthy again", "the orchard was in bloom",
            "the band played a waltz", "the farm had a rich harvest",
            "the painting took the gold medal", "the children built a sandcastle",
            "the kitten purred on the sofa", "the picnic went perfectly",
            "the heavy debt was paid off", "the ice cream van stopped nearby",
            "the boss praised the work", "the circus came to town",
            "the rainbow stretched over the hills", "the dream job was offered",
            "the lambs played in the meadow", "the twins were born at last",
        ],
        "things": [
            "the birthday party", "the wedding feast", "the good grades", "the warm hug",
            "the carnival", "the family reunion", "the winning goal", "the festival",
            "the chocolate", "the promotion", "the honeymoon", "the fireworks",
            "the sweet melody", "the applause", "the victory", "the playground",
            "the treasure", "the kind compliment", "the barbecue", "the butterflies",
        ],
    },
    "sadness": {
        "feelings": [
            "unhappy", "gloomy", "heartbroken", "miserable", "lonely", "tearful", "sorrowful",
            "downcast", "dejected", "mournful", "melancholy", "glum", "forlorn", "hopeless",
            "crushed", "wistful", "despondent", "bereft", "inconsolable", "disheartened",
        ],
        "reactions": [
            "cried all night", "wept", "sobbed into a pillow", "sighed deeply",
            "hung a heavy head", "moped around", "wiped away tears", "grieved in silence",
            "mourned for weeks", "lay in bed without a word", "wailed bitterly",
            "sank into despair", "ate nothing at all", "lost all hope", "wore black",
            "sulked in a corner", "brooded over old letters", "lit a candle for the dead",
        ],
        "events": [
            "the old dog died", "the grandmother passed away", "the best friend moved abroad",
            "the chapel bell tolled for the dead", "the marriage ended in divorce",
            "the goldfish floated lifeless in the bowl", "the letter said goodbye",
            "the bakery closed forever", "the flowers withered on the grave",
            "the doll was broken beyond repair", "the cottage was sold to the bank",
            "the ship carried the sailor away", "the last leaf fell",
            "the hospital called with bad news", "the factory dismissed its workers",
            "the nest was empty", "the wedding ring was lost", "the visit was cancelled",
            "the widow sat alone", "the oak was cut down", "the invitation never arrived",
            "the photograph faded", "the child was left out of the game",
            "the lovers parted at the station", "the crops failed", "the savings were gone",
            "the piano stayed silent", "the orphan had no coat",
            "the puppet theatre shut for good", "the sick pony did not recover",
        ],
        "things": [
            "the funeral", "the breakup", "the farewell", "the empty chair",
            "the loss of a friend", "the tombstone", "the long illness", "the failure",
            "the rejection", "the abandoned house", "the unanswered messages",
            "the homesickness", "the ruined plans", "the regret", "the defeat", "the tragedy",
            "the cold ashes", "the missing pet", "the betrayal", "the obituary",
        ],
    },
    "fear": {
        "feelings": [
            "afraid", "scared", "terrified", "frightened", "anxious", "nervous", "panicky",
            "uneasy", "petrified", "alarmed", "worried", "timid", "jittery", "spooked", "tense",
            "apprehensive", "horrified", "intimidated", "skittish", "daunted",
        ],
        "reactions": [
            "trembled", "shivered", "hid under the blanket", "screamed for help", "ran away",
            "locked the door", "begged for mercy", "froze on the spot", "backed away slowly",
            "crouched behind a barrel", "clutched the railing", "whimpered", "shuddered",
            "cowered", "fled", "turned pale", "called the police", "prayed to be spared",
        ],
        "events": [
            "a shadow moved behind the curtain", "footsteps followed in the dark",
            "the wolf howled close by", "the bridge began to sway",
            "the lights went out in the cellar", "a snake slid across the path",
            "thunder shook the roof", "the brakes stopped working", "smoke filled the corridor",
            "a stranger knocked at midnight", "the thin ice cracked",
            "a spider crawled up the wall", "the bear came near the tent",
            "the ground began to quake", "the elevator got stuck",
            "the burglar smashed a window", "a shark circled the boat",
            "the dentist picked up the drill", "the flood rose", "the bull charged",
            "a growl came from the cave", "the plane shook in the storm", "the siren wailed",
            "the cliff crumbled", "the robber pulled a knife", "the mask had glowing eyes",
            "the floor creaked in the attic", "the crocodile opened its jaws",
            "the fog swallowed the road", "the avalanche roared down",
        ],
        "things": [
            "the dark forest", "the ghost", "the monster under the bed", "the tiger",
            "the nightmare", "the thunderstorm", "the threat", "the haunted castle",
            "the deep water", "the scorpion", "the deadly virus", "the dangerous climb",
            "the surgery", "the hurricane", "the witch", "the wild boar", "the tornado",
            "the dungeon", "the bomb", "the poison",
        ],
    },
    "surprise": {
        "feelings": [
            "astonished", "amazed", "stunned", "startled", "shocked", "speechless",
            "bewildered", "baffled", "dumbfounded", "astounded", "flabbergasted", "puzzled",
            "perplexed", "thunderstruck", "staggered", "confounded", "dazed", "incredulous",
            "stupefied", "mystified",
        ],
        "reactions": [
            "gasped", "blinked", "gaped", "stared with wide eyes", "dropped the spoon",
            "rubbed both eyes", "raised an eyebrow", "did a double take", "spun around",
            "needed a pinch to be sure", "could not believe it", "looked twice", "stammered",
            "whispered wow", "asked how on earth", "scratched a puzzled head",
            "checked it all again", "nearly fell off the stool",
        ],
        "events": [
            "a rabbit jumped out of the hat", "the coin vanished",
            "the quiet clerk turned out to be a prince", "snow fell in July",
            "the parrot spoke Latin", "the statue winked", "a long lost cousin appeared",
            "the box was full of frogs", "the cat wore a crown", "the cut rope was whole again",
            "the teacher came on a unicycle", "the phone rang inside the fridge",
            "the mayor juggled turnips", "the fence turned purple overnight",
            "a penguin walked into the shop", "the clock ran backwards",
            "the potato weighed a hundred pounds", "the secret gate opened by itself",
            "an owl delivered the parcel", "the goose laid a golden egg",
            "the answer was the exact opposite", "the plot took a strange twist",
            "the soup was bright green", "the lamp began to hover",
            "the newspaper printed the date of tomorrow", "the moon looked square",
            "the elephant sat in the bathtub", "the shoes changed colour",
            "the janitor was a famous actor", "the map showed an unknown island",
        ],
        "things": [
            "the unexpected visitor", "the sudden announcement", "the magic trick",
            "the hidden room", "the mysterious parcel", "the odd coincidence",
            "the impossible result", "the riddle", "the talking fish", "the weird invention",
            "the flying saucer", "the unlikely champion", "the curious clue",
            "the astonishing discovery", "the bizarre costume", "the disguise",
            "the revelation", "the illusion", "the invisible ink", "the peculiar recipe",
        ],
    },
}  # fmt: skip

CLOSINGS: dict[str, list[str]] = {
    "joy": [
        "It was the best day of the year.", "Everything seemed bright and warm.",
        "The evening ended with music and laughter.", "Life was wonderful.",
        "The whole house was full of smiles.", "It was a day of good luck.",
        "Nothing could spoil such a lovely mood.", "They ate cake and sang together.",
    ],
    "sadness": [
        "Nothing could comfort the heavy heart.", "The tears would not stop.",
        "The house felt cold and empty.", "It was a day of grief.",
        "The pain stayed for a long time.", "The room was grey and silent.",
        "There was no hope left.", "Only memories and sorrow remained.",
    ],
    "fear": [
        "The danger was not over.", "The heart beat fast in the dark.",
        "Every sound seemed like a threat.", "It was a night of dread.",
        "They looked for a safe place to hide.", "The hands would not stop shaking.",
        "Nobody dared to move.", "They ran for their lives.",
    ],
    "surprise": [
        "Nobody had seen that coming.", "It made no sense at all.",
        "Who could have guessed it?", "It was hard to believe.",
        "Such a thing had never happened before.", "All mouths stood wide open.",
        "It was a very strange day.", "The whole thing remained a mystery.",
    ],
}  # fmt: skip

NEUTRAL_WORDS: frozenset[str] = frozenset(
    re.findall(
        r"\w+",
        """a an the its of to in on at by for from with without into over under out off up down away
        after again all and as be been behind both came come did began across around every everyone
        first full got had how it long near nearby no not nothing old like last left took turned was
        went were whole close beyond day good said very inside itself looked one never night
        other stood such that they this twice until could way word weeks""",
    )
)
"""Words that carry no feeling and may stand on both sides of the split."""


def content_stems(entry: str) -> set[str]:
    """Return the shortened content words of an entry, those that the split keeps apart."""
    words = re.findall(r"[a-z]+", entry.lower())
    return {word[:STEM_LENGTH] for word in words if word not in NEUTRAL_WORDS}


def linked_groups(entries: list[tuple[str, str, str]]) -> list[list[tuple[str, str, str]]]:
    """Group (tone, kind, entry) triples so that entries sharing a content stem are together."""
    groups: list[tuple[set[str], list[tuple[str, str, str]]]] = []
    for triple in entries:
        stems = content_stems(triple[2])
        members = [triple]
        apart = []
        for group_stems, group_members in groups:
            if group_stems & stems:
                stems = stems | group_stems
                members = group_members + members
            else:
                apart.append((group_stems, group_members))
        groups = [*apart, (stems, members)]
    return [members for _, members in groups]


def split_entries(seed: int = 20240607) -> tuple[Lexicon, Lexicon]:
    """Split all entries into a seen and a held-out lexicon that share no content word."""
    triples = [
        (tone, kind, entry) for tone in TONES for kind in KINDS for entry in ENTRIES[tone][kind]
    ]
    groups = linked_groups(triples)
    random.Random(seed).shuffle(groups)
    groups.sort(key=len, reverse=True)
    seen: Lexicon = {tone: {kind: [] for kind in KINDS} for tone in TONES}
    held_out: Lexicon = {tone: {kind: [] for kind in KINDS} for tone in TONES}
    for group in groups:
        fits = len(group) <= 3 and all(
            len(held_out[tone][kind]) + 1 <= HELD_OUT_SHARE * len(ENTRIES[tone][kind])
            for tone, kind, _ in group
        )
        side = held_out if fits else seen
        for tone, kind, entry in group:
            side[tone][kind].append(entry)
    return seen, held_out
