# SPDX-License-Identifier: Apache-2.0
"""The tables of docs/benchmarks.md that scripts write, each between two marker lines."""

import pathlib
import statistics

BENCHMARKS = pathlib.Path(__file__).parents[2] / "docs" / "benchmarks.md"


def write_between(marker, text):
    """Replaces what stands between `<!-- marker:begin -->` and `<!-- marker:end -->`."""
    begin, end = f"<!-- {marker}:begin -->", f"<!-- {marker}:end -->"
    page = BENCHMARKS.read_text(encoding="utf-8")
    if begin not in page or end not in page:
        raise SystemExit(f"{BENCHMARKS} has no lines {begin} and {end}")
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    BENCHMARKS.write_text(f"{before}{begin}\n{text.strip()}\n{end}{after}", encoding="utf-8")


def number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def machine_lines(store):
    """What the machine showed it can do, over all runs that are in the table."""
    machines = [entry["sides"]["Puna"]["machine"] for entry in store.values()]
    if not machines:
        return []

    def span(field):
        values = [machine[field] for machine in machines]
        return f"{min(values):.0f}–{max(values):.0f}" if max(values) - min(values) >= 1 else f"{values[0]:.0f}"

    first = machines[0]
    dates = sorted({entry["date"] for entry in store.values()})
    return [f"{first['cpu']}, {first['cores']} cores, {first['threads']} threads, {first['isa']}; "
            f"{dates[0]}{' to ' + dates[-1] if len(dates) > 1 else ''}. Measured in the same runs: read "
            f"{span('read_gb_per_s')} GB/s, int8 {span('int8_gop_per_s')} GOP/s, bf16 {span('bf16_gflop_per_s')} "
            f"GFLOP/s, f32 {span('f32_gflop_per_s')} GFLOP/s."]


def limit_text(puna, cell):
    """How close to the machine's limit, as `puna bench engine` says it."""
    if cell == "prefill":
        return f"{100 * statistics.median(puna['cells']['of peak']):.0f} % of {puna['peak']}"
    batch = cell.split()[1]
    return f"{100 * statistics.median(puna['cells']['of read ' + batch]):.0f} % of read"


def rows_of(entry):
    sides = dict(entry["sides"])
    puna = sides.pop("Puna")
    (peer_name, peer), = sides.items()
    model = f"{entry['file'].removesuffix('.gguf')}, context {entry['prompt']}"
    cells = ["prefill"] + [cell for cell in puna["cells"] if cell.startswith("decode")]
    for cell in cells:
        ours, theirs = puna["cells"][cell], peer["cells"][cell]
        name = f"prefill {entry['prompt']}" if cell == "prefill" else cell
        yield (f"| {model} | {name} | {number(statistics.median(ours))} | {limit_text(puna, cell)} | {peer_name} | "
               f"{number(statistics.median(theirs))} | **{statistics.median(ours) / statistics.median(theirs):.2f}** |")
        model = ""


def render(store):
    """Markdown of everything that was measured: medians of rounds in turns."""
    lines = machine_lines(store)
    lines += ["", "| model | tokens/s of | Puna | of its limit | peer | peer's | ratio |",
              "|---|---|---|---|---|---|---|"]
    for _, entry in sorted(store.items()):
        lines += rows_of(entry)
    notes = set()
    for entry in store.values():
        for side, facts in entry["sides"].items():
            if facts.get("flags"):
                notes.add(f"{side}: {', '.join(map(str, facts['flags']))} ({entry['file']})")
            for test, value in facts.get("extra", {}).items():
                notes.add(f"llama-bench {test}: {value:.1f} ({entry['file']})")
    if notes:
        lines += ["", "Settings: " + "; ".join(sorted(notes)) + "."]
    return "\n".join(lines)
