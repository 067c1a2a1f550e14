"""See and tidy up what the cache holds: ls, rm, gc, verify, explain.

Which cache: the config's, --cache-dir DIR's, or .drupe-cache in this folder.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from drupe import plan
from drupe.chain import Step
from drupe.config.load import load
from drupe.config.schema import EngineConfig
from drupe.core.amounts import read_bytes, read_seconds
from drupe.core.cache import Cache
from drupe.core.errors import Refused
from drupe.core.explain import Difference, differences, nearest
from drupe.core.housekeeping import Sweep, collect, on_disk, remove
from drupe.core.provisions import Provision, provisions
from drupe.core.stock import SHORT, Entry, check_is_cache, in_use, survey
from drupe.core.verify import repair, verify
from drupe.report.words import duration, size

EXAMPLES = """\
  drupe cache ls
  drupe cache gc --older-than 30d --keep-bytes 20GB --dry-run
"""
ABOUT = {
    "ls": "list the results",
    "rm": "drop results by their keys",
    "gc": "drop what nothing needs, and on demand what was not used for longest",
    "verify": "read every byte and compare; exit status 1 if something is damaged",
    "explain": "say why two results differ, or why the steps of a config are not cached",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `drupe cache`."""
    verbs = parser.add_subparsers(dest="verb", metavar="ls|rm|gc|verify|explain", required=True)
    made = {}
    for verb, line in ABOUT.items():
        made[verb] = verbs.add_parser(verb, help=line, description=line[0].upper() + line[1:] + ".")
        made[verb].add_argument("--config", metavar="FILE", help="the config whose cache is meant")
        made[verb].add_argument("--cache-dir", metavar="DIR", help="the cache itself")
        made[verb].add_argument("--json", action="store_true", help="for programs")
        made[verb].add_argument("--debug", action="store_true", default=argparse.SUPPRESS)
    for verb in ("ls", "gc", "verify"):
        made[verb].add_argument("file", nargs="?", metavar="FILE", help="the same as --config")
    made["rm"].add_argument("keys", nargs="+", metavar="KEY", help="a key, or its first digits")
    made["explain"].add_argument(
        "named", nargs="+", metavar="FILE|KEY", help="a config, or two keys or their first digits"
    )
    made["gc"].add_argument(
        "--keep-bytes", metavar="20GB", type=_amount(read_bytes), help="drop results beyond this"
    )
    made["gc"].add_argument(
        "--older-than", metavar="30d", type=_amount(read_seconds), help="drop those unused so long"
    )
    for verb in ("rm", "gc"):
        made[verb].add_argument("--dry-run", action="store_true", help="tell, and drop nothing")
    made["verify"].add_argument("--repair", action="store_true", help="drop what is damaged")


def _amount(read: Callable[[str], float]) -> Callable[[str], float]:
    def read_or_tell(text: str) -> float:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return read_or_tell


def run(arguments: argparse.Namespace) -> int:
    """Do what is asked; return the exit status."""
    verbs = {"ls": _ls, "rm": _rm, "gc": _gc, "verify": _verify, "explain": _explain}
    return verbs[arguments.verb](arguments, Console(highlight=False, soft_wrap=True))


def _cache(arguments: argparse.Namespace, file: str | None) -> Cache:
    """Return the cache that the arguments name; raises Refused where there is none."""
    given = [name for name in (file, arguments.config, arguments.cache_dir) if name]
    if len(given) > 1:
        raise Refused(
            f"drupe cache {arguments.verb}",
            f"is told {len(given)} caches: {', '.join(given)}",
            "Name one: --cache-dir DIR, or the config whose cache is meant.",
        )
    if file or arguments.config:
        folder = plan.cache_folder(load(Path(file or arguments.config)))
    else:
        folder = Path(arguments.cache_dir or EngineConfig().cache_dir).resolve()
    check_is_cache(folder)
    return Cache(folder)


def _say(value: Any) -> int:
    print(json.dumps(value, indent=2, ensure_ascii=False))
    return 0


def _ls(arguments: argparse.Namespace, console: Console) -> int:
    cache = _cache(arguments, arguments.file)
    stock, kept = survey(cache), provisions(cache, in_use(cache))
    entries = sorted(stock.entries, key=lambda entry: entry.used, reverse=True)
    kept = sorted(kept, key=lambda each: (each.kind, -each.used))
    total = on_disk(stock, kept)
    if arguments.json:
        results = [{**entry.to_json(), "own_bytes": stock.own_bytes(entry)} for entry in entries]
        beside = [each.to_json() for each in kept]
        return _say({"results": results, "provisions": beside, "total_bytes": total})
    rows = [["key", "made by", "kind", "size", "its own", "age", "used", ""]]
    rows += [_row(entry, stock.own_bytes(entry)) for entry in entries]
    _print_table(rows, console)
    if kept:
        rows = [["kind", "kept for systems and resources", "size", "used", ""]]
        rows += [_row_beside(each) for each in kept]
        console.print()
        _print_table(rows, console)
    console.print(f"\n{_counted(len(entries), 'result')}, {size(total)} on the disk.")
    return 0


def _print_table(rows: list[list[str]], console: Console) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:  # in full, whatever the width of the terminal: a log has none
        cells = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        console.print("  ".join(cells).rstrip(), markup=False)


def _row_beside(each: Provision) -> list[str]:
    folder, slash, name = each.name.partition("/")
    state = "in use" if each.in_use else "" if each.whole else "in part"
    ago = f"{duration(each.age_seconds)} ago"
    return [each.kind, f"{folder}{slash}{name[:SHORT]}", size(each.size_bytes), ago, state]


def _row(entry: Entry, own_bytes: int) -> list[str]:
    age = max(0.0, entry.age_seconds + entry.used - entry.made)
    return [
        entry.key[:SHORT],
        entry.manifest.operation if entry.manifest else "?",
        entry.manifest.kind if entry.manifest else "?",
        size(entry.size_bytes),
        size(own_bytes),
        duration(age),
        f"{duration(entry.age_seconds)} ago",
        f"{entry.state}: {entry.why}" if entry.why else entry.state,
    ]


def _rm(arguments: argparse.Namespace, console: Console) -> int:
    sweep = remove(_cache(arguments, None), arguments.keys, arguments.dry_run)
    return _tell(sweep, arguments, console)


def _gc(arguments: argparse.Namespace, console: Console) -> int:
    cache = _cache(arguments, arguments.file)
    sweep = collect(cache, arguments.keep_bytes, arguments.older_than, arguments.dry_run)
    return _tell(sweep, arguments, console)


def _tell(sweep: Sweep, arguments: argparse.Namespace, console: Console) -> int:
    if arguments.json:
        return _say({"dry_run": arguments.dry_run, **sweep.to_json()})
    for entry in sweep.results:
        console.print(f"  {entry.key[:SHORT]}  {_operation(entry)}  {size(entry.size_bytes)}")
    for each in sweep.provisions:
        ago = f"used {duration(each.age_seconds)} ago" if each.whole else "in part"
        console.print(f"  {each.name}  {ago}  {size(each.size_bytes)}")
    for path in sweep.leftovers:
        console.print(f"  {path.parent.name}/{path.name}  left by a process that is gone")
    console.print(
        f"{'Would drop' if arguments.dry_run else 'Dropped'} "
        f"{_counted(len(sweep.results), 'result')}, {_counted(len(sweep.blobs), 'blob')}, "
        f"{_beside(sweep)}"
        f"{_counted(len(sweep.leftovers), 'leftover')}, {_counted(len(sweep.locks), 'lock')}, "
        f"{_counted(sweep.digests, 'old digest')}: {size(sweep.freed_bytes)}. "
        f"{size(sweep.left_bytes)} {'would stay' if arguments.dry_run else 'are left'}."
    )
    return 0


def _beside(sweep: Sweep) -> str:
    count = len(sweep.provisions)
    return f"{count} kept for systems and resources, " if count else ""


def _operation(entry: Entry) -> str:
    return entry.manifest.operation if entry.manifest else entry.state


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _verify(arguments: argparse.Namespace, console: Console) -> int:
    cache = _cache(arguments, arguments.file)
    verified = verify(cache)
    left = repair(cache, verified.damages) if arguments.repair else verified.damages
    if arguments.json:
        _say(
            {
                "results": verified.results,
                "blobs": verified.blobs,
                "other_formats": verified.other_formats,
                "read_bytes": verified.read_bytes,
                "damages": [vars(damage) for damage in verified.damages],
                "left": [vars(damage) for damage in left],
            }
        )
        return 1 if left else 0
    for damage in verified.damages:
        end = "" if not arguments.repair else ": in use" if damage in left else ": dropped"
        console.print(f"  {damage.what} {damage.name[:SHORT]}: {damage.fault}{end}")
    console.print(
        f"Read {_counted(verified.results, 'result')} and {_counted(verified.blobs, 'blob')}, "
        f"{size(verified.read_bytes)}: {len(verified.damages) or 'nothing'} damaged."
    )
    if verified.other_formats:
        of_others = _counted(verified.other_formats, "result")
        console.print(f"{of_others} of another format: left alone.")
    if left and not arguments.repair:
        console.print("drupe cache verify --repair drops what is damaged: it is made anew.")
    return 1 if left else 0


def _explain(arguments: argparse.Namespace, console: Console) -> int:
    if len(arguments.named) == 1:
        return _explain_config(Path(arguments.named[0]), arguments, console)
    if len(arguments.named) != 2:
        raise Refused(
            "drupe cache explain", "needs a config, or two keys", "Write: drupe cache explain A B"
        )
    stock = survey(_cache(arguments, None))
    one, other = (stock.named(prefix) for prefix in arguments.named)
    for entry in (one, other):
        if entry.manifest is None:
            raise Refused(entry.key[:SHORT], f"cannot be explained: {entry.why}", "Name another.")
    assert one.manifest
    assert other.manifest
    found = differences(one.manifest.parts, other.manifest.parts, _known(stock.entries))
    if arguments.json:
        return _say({"differences": [difference.to_json() for difference in found]})
    console.print(f"{one.key[:SHORT]} -> {other.key[:SHORT]}", style="bold")
    _print_differences(found, console)
    return 0


def _known(entries: tuple[Entry, ...]) -> dict[str, dict[str, Any]]:
    """Return {key: its parts} of all results that tell them."""
    return {entry.key: entry.manifest.parts for entry in entries if entry.manifest}


def _print_differences(found: list[Difference], console: Console) -> None:
    for difference in found:
        for line in difference.lines("  "):
            console.print(line, markup=False)
    if not found:
        console.print("  No part of their keys differs.")


def _explain_config(file: Path, arguments: argparse.Namespace, console: Console) -> int:
    if arguments.config or arguments.cache_dir:
        raise Refused("drupe cache explain", "is told two caches", "A config's own cache is meant.")
    told: list[str] = []
    planned = plan.make(load(file), told.append)
    entries = survey(planned.cache).entries
    latest = sorted(entries, key=lambda entry: entry.used, reverse=True)
    cached = {entry.key: entry.manifest.parts for entry in latest if entry.manifest}
    known = {**cached, **{step.key: step.parts for step in planned.steps}}
    answers = [_answer(step, cached, known) for step in planned.steps]
    if arguments.json:
        return _say({"steps": answers})
    for text in told:
        console.print(f"! {text}", style="yellow", markup=False)
    for answer in answers:
        console.print(f"{answer['step']}  {answer['key'][:SHORT]}: {answer['why']}", markup=False)
        for line in answer["lines"]:
            console.print(line, markup=False)
    return 0


def _answer(
    step: Step, cached: dict[str, dict[str, Any]], known: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """Return why a step is a hit or none."""
    answer = {"step": step.name, "key": step.key, "hit": step.hit, "nearest": None}
    if step.hit:
        return {**answer, "why": "cached", "differences": [], "lines": []}
    if step.key in cached:
        why = "a result of this key is here, but what it was made from is not, or it is damaged"
        return {**answer, "why": why, "differences": [], "lines": []}
    found = nearest(step.parts, cached.items())
    if found is None:
        why = f"to run, and no result of {step.registered} is here"
        return {**answer, "why": why, "differences": [], "lines": []}
    different = differences(cached[found], step.parts, known)
    return {
        **answer,
        "nearest": found,
        "why": f"to run; the nearest result {found[:SHORT]} differs in",
        "differences": [difference.to_json() for difference in different],
        "lines": [line for difference in different for line in difference.lines("  ")],
    }
