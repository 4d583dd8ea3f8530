"""How often `diagnose` is wrong: verdicts on networks of known nature, counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from toymodels.diagnosis.known import KNOWN
from toymodels.diagnosis.known_gates import SIZE
from toymodels.diagnosis.registry import Subject
from toymodels.diagnosis.verdict import VERDICTS, judge, subject_of
from toymodels.reproductions.registry import REPRODUCTIONS, Line, Row


def subjects(key: Row) -> Iterator[Subject]:
    """Yield the networks of one nature, one for each seed, each with a sample of its own."""
    for (made, task), seed in zip(KNOWN[key["nature"]].call(key), key["seeds"], strict=True):
        yield subject_of(made, task, inputs=key["eval"], seed=seed)


def verdicts(key: Row) -> Row:
    """Make the networks of one nature, one for each seed; return their verdicts, and the reasons of the first."""
    given = [judge(subject) for subject in subjects(key)]
    return {
        "right": KNOWN[key["nature"]].nature, "verdicts": [verdict for verdict, _ in given], "reasons": list(given[0][1]),
    }  # fmt: skip


def counted(row: Row) -> Counter[str]:
    """Count the verdicts of one nature."""
    return Counter(row["verdicts"])


def _keys(size: Mapping[str, int], seeds: tuple[int, ...]) -> list[Row]:
    """List a case for each nature."""
    keys = []
    for name, member in KNOWN.items():
        if "steps" in member.parameters and not size["steps"]:
            continue
        n, d = member.gates or (size["n"], size["d"])
        steps = size["steps"] if "steps" in member.parameters else 0
        # What a neuron of its own is was changed after these networks on the other seeds: they need 20 that nobody had seen.
        own = [seed + 20 for seed in seeds] if name == "naive_trained" else list(seeds)
        keys.append({"nature": name, "n": n, "d": d, "steps": steps, "eval": size["eval"], "seeds": own})
    return keys


def _lines(rows: Sequence[Row]) -> list[Line]:
    lines = []
    for row in rows:
        counts = counted(row)
        words = ", ".join(f"{verdict} {counts[verdict]}" for verdict in VERDICTS if counts[verdict])
        right = row["right"]
        if right is None:  # a border case, which is in the answer
            continue
        wrong = [float(verdict != right) for verdict in row["verdicts"]]
        lines.append(Line(f"{row['nature']} ({right}): {words}; share wrong", wrong))
    return lines


def _answer(rows: Sequence[Row]) -> str:
    """Say how many verdicts are wrong, and up to which rate that speaks for."""
    from scipy.stats import beta

    pairs = [(row["right"], verdict) for row in rows if row["right"] for verdict in row["verdicts"]]
    wrong = sum(right != verdict for right, verdict in pairs)
    border = ", ".join(
        f"{row['nature']} ({', '.join(f'{name} {count}' for name, count in counted(row).most_common())})"
        for row in rows
        if row["right"] is None
    )
    limit = float(beta.ppf(0.95, wrong + 1, len(pairs) - wrong)) if wrong < len(pairs) else 1.0
    return (
        f"{wrong} of {len(pairs)} verdicts on networks of known nature are wrong ({wrong / len(pairs):.1%}; below {limit:.1%} "
        f"with 95 % confidence, for networks drawn as these are). Border cases are not counted: {border}."
    )


REPRODUCTIONS(
    "confusion", shows="new: verdicts of `diagnose` on networks of known nature, 20 seeds of each", source="measured here",
    reduced={"n": 60, "d": 30, "steps": 40_000, "eval": 20_000}, full={"n": 100, "d": 50, "steps": 100_000, "eval": 100_000},
    keys=_keys, lines=_lines, answer=_answer, minutes=20, order=20,
    seeds=tuple(range(100, 120)),  # not those that the limits of verdicts were set on
)(verdicts)  # fmt: skip


NULLS = {"and_trained": SIZE, "and_plain": SIZE, "and_gaussian": SIZE, "and_bernoulli": SIZE, "and_blocks": (16, 100)}
"""Natures, with features and neurons."""
RATIOS = {
    "gaussian_ratio": "limit of Gaussian layers / own",
    "shuffled_ratio": "limit of the same weights in random places / own",
}


def null_ratios(key: Row) -> Row:
    """Measure how much better than random ones the layers of one nature are, for each seed."""
    drawn = list(subjects(key))
    return {name: [subject.value(name) for subject in drawn] for name in RATIOS}


def _null_keys(size: Mapping[str, int], seeds: tuple[int, ...]) -> list[Row]:
    return [{"nature": name, "n": n, "d": d, **size, "seeds": list(seeds)} for name, (n, d) in NULLS.items()]


def _null_lines(rows: Sequence[Row]) -> list[Line]:
    return [Line(f"{row['nature']}: {label}", row[name]) for row in rows for name, label in RATIOS.items()]


REPRODUCTIONS(
    "null_ratio", shows="new: layers for the AND of all pairs beside Gaussian and shuffled ones of their size",
    source="measured here", reduced={"eval": 20_000}, full={"eval": 100_000}, keys=_null_keys, lines=_null_lines,
    minutes=1, order=21, seeds=tuple(range(100, 105)),
)(null_ratios)  # fmt: skip
