"""Samples in, tables out.

Ratios and differences are taken within a round and their median is shown: what else the machine did in that round
fell on both sides alike.
"""

import statistics

from scenarios import SCENARIOS

# Above this many busy CPUs of others, times say little.
NOISE_CPUS = 0.3
# A difference between ratios below this one is noise even on a quiet machine.
NOISE_RATIO = 0.05
REFERENCE = "haproxy"


def entry(sample, path):
    for key in path.split("."):
        sample = sample.get(key) if isinstance(sample, dict) else None
    return sample


def median(values):
    values = [value for value in values if value is not None]
    return statistics.median(values) if values else None


def show(value, digits=1):
    return "–" if value is None else f"{value:,.{digits}f}"


class Samples:
    """All samples of a run: scenario, then proxy, then round."""

    def __init__(self, by_scenario=None, titles=None, facts=None):
        self.by_scenario = by_scenario or {}
        self.titles = titles or {}
        self.facts = facts or {}

    def add(self, scenario, proxy, turn, sample):
        self.by_scenario.setdefault(scenario, {}).setdefault(proxy, {})[str(turn)] = sample

    def of(self, scenario, proxy):
        return self.by_scenario.get(scenario, {}).get(proxy, {})

    def median(self, scenario, proxy, path):
        return median(entry(sample, path) for sample in self.of(scenario, proxy).values())

    def within_rounds(self, scenario, proxy, base, path, join):
        """Median over rounds of `join(proxy's, base's)`."""
        others = self.of(scenario, base)
        pairs = ((entry(sample, path), entry(others.get(turn), path)) for turn, sample in self.of(scenario, proxy).items())
        return median(join(mine, theirs) for mine, theirs in pairs if mine is not None and theirs)

    def cpu_ratio(self, scenario, proxy):
        if proxy == REFERENCE:
            return 1.0 if self.of(scenario, proxy) else None
        return self.within_rounds(scenario, proxy, REFERENCE, "proxy.cpu_us_op", lambda mine, theirs: mine / theirs)

    def added_p50(self, scenario, proxy):
        """Microseconds more than without a proxy."""
        return self.within_rounds(scenario, proxy, "direct", "lat_us.p50", lambda mine, theirs: mine - theirs)

    def idle_kb(self, proxy):
        return self.median("idle2k", proxy, "rss_kb_conn")

    def other_cpus(self):
        """How many CPUs were busy with something else: median and worst of all samples."""
        values = [entry(sample, "other_cpus") for proxies in self.by_scenario.values()
                  for turns in proxies.values() for sample in turns.values()]
        values = [value for value in values if value is not None]
        return (statistics.median(values), max(values)) if values else (None, None)

    def errors(self):
        return [(scenario, proxy, turn, sample["error"]) for scenario, proxies in self.by_scenario.items()
                for proxy, turns in proxies.items() for turn, sample in turns.items() if "error" in sample]

    def proxies(self, scenario=None):
        seen = self.by_scenario.get(scenario, {}) if scenario else {p for s in self.by_scenario.values() for p in s}
        return [proxy for proxy in self.titles if proxy in seen]

    def title(self, proxy):
        return f"**{self.titles[proxy]}**" if proxy == "poolscope" else self.titles[proxy]


def table(head, rows):
    # Columns in which nobody has anything are not shown.
    kept = [0] + [column for column in range(1, len(head)) if any(row[column] != "–" for row in rows)]
    lines = [[head[column] for column in kept], ["---"] + ["---:"] * (len(kept) - 1)]
    lines += [[row[column] for column in kept] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def summary(samples):
    """The one table that says it all: CPU in proportion to HAProxy's."""
    loads = [scenario for scenario in SCENARIOS if not scenario.is_idle]
    head = [""] + [scenario.title for scenario in loads] + ["idle KB/conn", "added p50 ×1, µs"]
    rows = []
    for proxy in samples.proxies():
        if proxy == "direct":
            continue
        row = [samples.title(proxy)] + [show(samples.cpu_ratio(scenario.name, proxy), 2) for scenario in loads]
        rows.append(row + [show(samples.idle_kb(proxy)), show(samples.added_p50("ping1", proxy), 0)])
    return table(head, rows)


def load_table(samples, scenario):
    name = scenario.name
    head = ["", "conn/s" if scenario.mode == "connect" else "ops/s", "MB/s", "p50 µs", "p99 µs", "p99.9 µs",
            "added p50 µs", "CPU µs/op", "of it user", "CPU ms/GB", "CPU : HAProxy", "switches/op", "memory MB",
            "other CPUs"]
    rows = []
    for proxy in samples.proxies(name):
        def of(path, digits=1, scale=1.0):
            value = samples.median(name, proxy, path)
            return show(None if value is None else value * scale, digits)

        switches = [samples.median(name, proxy, f"proxy.{kind}_op") for kind in ("vcsw", "ivcsw")]
        is_proxy = proxy != "direct"
        rows.append([
            samples.title(proxy), of("ops_s", 0), of("mb_s", 0) if scenario.size else "–",
            of("lat_us.p50", 0), of("lat_us.p99", 0), of("lat_us.p999", 0),
            show(samples.added_p50(name, proxy), 0) if is_proxy else "–",
            of("proxy.cpu_us_op"), of("proxy.user_us_op"),
            of("proxy.cpu_ms_gb", 0) if scenario.is_large else "–",
            show(samples.cpu_ratio(name, proxy), 2) if is_proxy else "–",
            show(None if None in switches else sum(switches), 2),
            of("proxy.rss_kb", 1, 1 / 1024), of("other_cpus", 2)])
    conns = f"{scenario.conns} connection{'s' if scenario.conns > 1 else ''}"
    what = f"{scenario.conns} workers" if scenario.mode == "connect" else conns
    return f"### {scenario.title}, {what}\n\n{table(head, rows)}"


def idle_table(samples, scenario):
    head = ["", "alive", "RSS MB", "RSS KB/conn", "PSS KB/conn", "CPU ms/s"]
    rows = []
    for proxy in samples.proxies(scenario.name):
        def of(path, digits=1, scale=1.0):
            value = samples.median(scenario.name, proxy, path)
            return show(None if value is None else value * scale, digits)

        rows.append([samples.title(proxy), of("alive", 0), of("rss_kb", 1, 1 / 1024), of("rss_kb_conn", 2),
                     of("pss_kb_conn", 2), of("idle_cpu_ms_s", 2)])
    return f"### {scenario.conns:,} idle connections\n\n{table(head, rows)}"


def noise_note(samples):
    middle, worst = samples.other_cpus()
    if middle is None:
        return ""
    note = f"Other work kept {middle:.2f} CPUs busy in the median, {worst:.2f} at worst."
    if middle > NOISE_CPUS:
        note = f"**Not a quiet machine: do not quote these figures.** {note}"
    return note


def markdown(samples, with_picture):
    facts = samples.facts
    parts = [
        "# poolscope beside other proxies",
        "Written by `make bench`; do not edit. How it is measured and how to read it: "
        "[`benches/README.md`](../README.md).",
        "\n".join(f"* {key}: {value}" for key, value in facts.items()),
        noise_note(samples),
        "## CPU in proportion to HAProxy's",
        "The proxy's CPU for each operation, kernel included, divided by HAProxy's in the same round; median over "
        f"rounds, smaller is better. A difference below {NOISE_RATIO} is noise. Memory is that of 2,000 idle "
        "connections, latency that of a ping over one connection, compared with none in between.",
        summary(samples),
    ]
    if with_picture:
        parts.append("![CPU for each operation in proportion to HAProxy's](picture.svg)")
    parts.append("## In figures")
    for scenario in SCENARIOS:
        if scenario.name in samples.by_scenario:
            parts.append(idle_table(samples, scenario) if scenario.is_idle else load_table(samples, scenario))
    if samples.errors():
        parts.append("## Failed")
        parts.append("\n".join(f"* {scenario}, {proxy}, round {turn}: {error}"
                               for scenario, proxy, turn, error in samples.errors()))
    return "\n\n".join(part for part in parts if part) + "\n"
