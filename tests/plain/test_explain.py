"""Why two keys differ."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from drupe.core.explain import differences, nearest

DIGEST, OTHER = "a" * 64, "b" * 64
PARTS: dict[str, Any] = {
    "format": 1,
    "operation": "LoRA",
    "version": 3,
    "fields": {"r": 8, "data": {"files": [{"content": DIGEST}], "names": ["x", "y"]}},
    "libraries": {"torch": "2.6"},
    "parents": ["p"],
}


def told(changes: dict[str, Any], known: dict[str, Any] | None = None) -> list[str]:
    found = differences(PARTS, PARTS | changes, known or {})
    return [line for difference in found for line in difference.lines()]


def test_each_part_is_told_in_its_own_words() -> None:
    assert told({}) == []
    assert told({"version": 4}) == ["code version: 3 -> 4"]
    assert told({"format": 2}) == ["form of the key: 1 -> 2"]
    assert told({"operation": "Merge"}) == ["operation: LoRA -> Merge"]
    assert told({"libraries": {"torch": "2.7", "peft": "1"}}) == [
        "library torch: 2.6 -> 2.7",
        "library peft: (none) -> 1",
    ]
    data = {"files": [{"content": OTHER}], "names": ["x"]}
    assert told({"fields": {"r": 16, "data": data}}) == [
        "field r: 8 -> 16",
        f"content of field data.files[0]: {'a' * 12} -> {'b' * 12}",
        "field data.names: ['x', 'y'] -> ['x']",
    ]


def test_a_long_text_is_one_short_line() -> None:
    [line] = told({"fields": {**PARTS["fields"], "r": "one\ntwo " * 20}})
    assert line.startswith("field r: 8 -> one two one two")
    assert len(line) < 90


def test_a_difference_is_followed_to_the_parent_where_it_began() -> None:
    known = {"p": PARTS, "q": PARTS | {"version": 4}}
    assert told({"parents": ["q"]}, known) == ["parent 1: p -> q", "  code version: 3 -> 4"]
    assert told({"parents": ["q"]}) == ["parent 1 (the input model, or no result here): p -> q"]


def test_the_nearest_is_of_the_same_operation_and_the_latest_of_equals() -> None:
    far = PARTS | {"version": 9, "libraries": {}}
    near, as_near = PARTS | {"version": 2}, PARTS | {"version": 1}
    merge = PARTS | {"operation": "Merge"}
    candidates = [("merge", merge), ("far", far), ("near", near), ("as near", as_near)]
    assert nearest(PARTS, candidates) == "near"
    assert nearest(merge, candidates[1:]) is None


NAMES = st.text(alphabet="abc", min_size=1, max_size=3)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


@given(JSON, JSON)
def test_fields_that_are_equal_differ_in_nothing_and_others_in_something(
    one: Any, other: Any
) -> None:
    found = differences({"fields": {"x": one}}, {"fields": {"x": other}}, {})
    assert bool(found) == (one != other)
