"""Two sentences on the page of measurements: what was timed and beside what, and what came out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from benchmarks.page_tables import KINDS, number, plain
from benchmarks.targets import Record


def summary(records: Sequence[Record]) -> str:
    """(What was timed, what came out) of records whose kinds are known."""
    subjects, outcomes = [], []
    for kind in KINDS:
        mine = [record for record in records if kind.bench == record["bench"] and kind.entry in record]
        if mine:
            subject, outcome = TOLD[kind.entry]
            subjects.append(subject(mine))
            outcomes.append(outcome(mine))
    devices = list(dict.fromkeys(plain(record["device"]) for record in records))
    return f"Timed on {_list(devices)}: {'; '.join(subjects)}. {_sentence('; '.join(filter(None, outcomes)))}"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}." if text else "Nothing was measured."


def _list(words: Iterable[str]) -> str:
    names = list(dict.fromkeys(words))
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _range(values: Sequence[float], unit: str) -> str:
    """ "3 to 18 times"; of one value the value."""
    low, high = number(min(values)), number(max(values))
    return f"{low}{unit}" if low == high else f"{low} to {high}{unit}"


def _cases(count: int) -> str:
    return "one case" if count == 1 else f"{count} cases"


def _measured(records: Sequence[Record], key: str) -> list[Record]:
    return [row for record in records for row in record[key] if "failed" not in row]


def _compared(records: Sequence[Record]) -> str:
    ours, *others = dict.fromkeys(plain(name) for record in records for name in record["contestants"])
    count = sum(len(record["cases"]) for record in records)
    beside = f" beside {_list(others)}" if others else ""
    return f"the scans of {ours}, forward + backward,{beside} in {_cases(count)}"


def _compared_outcome(records: Sequence[Record]) -> str:
    ratios = []
    for record in records:
        ours, *others = record["contestants"]
        for row in record["cases"] if others else ():
            fastest = min(row["results"][name]["ms"]["median"] for name in others)
            ratios.append(fastest / row["results"][ours]["ms"]["median"])
    ours = plain(next(iter(records[0]["contestants"])))
    return (
        f"the fastest of the others takes {_range(ratios, ' times')} as long as {ours}, by case"
        if ratios
        else ""
    )


def _passes(records: Sequence[Record]) -> str:
    count = sum(len(record["cases"]) for record in records)
    return f"the scans forward and backward apart beside a plain copy in {_cases(count)}"


def _passes_outcome(records: Sequence[Record]) -> str:
    rows = _measured(records, "cases")
    if not rows:
        return ""
    told = [
        f"{_range([row[one]['percent_of_copy'] for row in rows], ' %')} {one}"
        for one in ("forward", "backward")
    ]
    return f"the scans reach {_list(told)} of the speed of a copy"


def _layers(records: Sequence[Record]) -> str:
    others = len({name for record in records for name in record["rivals"]})
    beside = f" beside {others} baseline{'' if others == 1 else 's'}" if others else ""
    return f"whole layers{beside}"


def _layers_outcome(records: Sequence[Record]) -> str:
    ratios = [
        row["times_ours"] for record in records for row in record["rivals"].values() if "times_ours" in row
    ]
    if ratios:
        return f"baselines take {_range(ratios, ' times')} as long as our layer of as many parameters"
    times = [row["both"]["ms"]["median"] for row in _measured(records, "ours")]
    return f"a layer takes {_range(times, ' ms')} forward + backward" if times else ""


def _decode(records: Sequence[Record]) -> str:
    count = sum(len(record["layers"]) for record in records)
    return f"one token at a time of {'one layer' if count == 1 else f'{count} layers'}"


def _decode_outcome(records: Sequence[Record]) -> str:
    times = [row["us"]["median"] for row in _measured(records, "layers")]
    return f"a step takes {_range(times, ' µs')} a layer" if times else ""


def _training(records: Sequence[Record]) -> str:
    return f"training steps run in {sum(len(record['ways']) for record in records)} ways"


def _training_outcome(records: Sequence[Record]) -> str:
    times = [row["ms"]["median"] for row in _measured(records, "ways")]
    return f"a training step takes {_range(times, ' ms')}" if times else ""


Told = Callable[[Sequence[Record]], str]

TOLD: dict[str, tuple[Told, Told]] = {
    "contestants": (_compared, _compared_outcome),
    "passes": (_passes, _passes_outcome),
    "ours": (_layers, _layers_outcome),
    "layers": (_decode, _decode_outcome),
    "ways": (_training, _training_outcome),
}
"""What was timed and what came out, by the entry that tells a kind of record (`page_tables.KINDS`)."""
