"""The summary as a picture: a row for each scenario, a mark for each proxy, HAProxy as the line at 1."""

from xml.sax.saxutils import escape

from report import NOISE_CPUS, REFERENCE
from scenarios import SCENARIOS

WIDTH, LEFT, RIGHT, TOP, ROW = 900, 200, 116, 92, 30
# What is dearer than this stands beyond the edge, with its figure.
LIMIT = 2.0

# Colours of equal weight on a light and on a dark ground.
STYLE = """
text { font-family: system-ui, "Segoe UI", "DejaVu Sans", sans-serif; font-size: 13px; fill: #1f2328 }
.faint { fill: #59636e } .small { font-size: 11px } .strong { font-weight: bold }
.grid { stroke: #d1d9e0; stroke-width: 1 } .one { stroke: #59636e; stroke-width: 1.5 }
.poolscope { fill: #0a7d4b } .haproxy-splice { fill: #9a6700 } .nginx { fill: #0969da } .envoy { fill: #8250df }
.bare { fill: #59636e }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .faint { fill: #9198a1 } .grid { stroke: #3d444d } .one { stroke: #9198a1 }
  .poolscope { fill: #3fb950 } .haproxy-splice { fill: #d29922 } .nginx { fill: #4493f8 } .envoy { fill: #ab7df8 }
  .bare { fill: #9198a1 }
}
"""


def x_of(ratio):
    return LEFT + min(ratio, LIMIT) / LIMIT * (WIDTH - LEFT - RIGHT)


def mark(proxy, x, y):
    """Shapes differ too, for those who cannot tell the colours apart."""
    if proxy == "poolscope":
        return f'<circle class="{proxy}" cx="{x:.1f}" cy="{y:.1f}" r="7"/>'
    if proxy == "nginx":
        return f'<rect class="{proxy}" x="{x - 4.5:.1f}" y="{y - 4.5:.1f}" width="9" height="9"/>'
    corners = {
        "haproxy-splice": [(0, -6), (6, 0), (0, 6), (-6, 0)],
        "envoy": [(0, -6), (6, 5), (-6, 5)],
        "bare": [(-6, -2), (6, -2), (6, 2), (-6, 2)],
    }[proxy]
    points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)
    return f'<polygon class="{proxy}" points="{points}"/>'


def text(x, y, words, classes="", anchor="start"):
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{classes}" text-anchor="{anchor}">{escape(words)}</text>'


def rows_of(samples, proxies):
    """Title and ratios by proxy."""
    for scenario in SCENARIOS:
        if not scenario.is_idle:
            yield scenario.title, {proxy: samples.cpu_ratio(scenario.name, proxy) for proxy in proxies}
    for title, value_of in [
        ("idle connection, memory", samples.idle_kb),
        ("added latency, ping ×1", lambda proxy: samples.added_p50("ping1", proxy)),
    ]:
        base = value_of(REFERENCE)
        values = {proxy: value_of(proxy) for proxy in proxies}
        yield title, {proxy: value / base if value is not None and base else None for proxy, value in values.items()}


def svg(samples):
    proxies = [proxy for proxy in samples.proxies() if proxy not in ("direct", REFERENCE)]
    rows = [(title, ratios) for title, ratios in rows_of(samples, proxies)
            if any(ratio is not None for ratio in ratios.values())]
    bottom = TOP + ROW * len(rows)
    height = bottom + 34
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'role="img" aria-labelledby="title">',
        '<title id="title">CPU of proxies for each operation, in proportion to that of HAProxy</title>',
        f"<style>{STYLE}</style>",
        text(16, 26, "CPU for each operation, HAProxy = 1 (smaller is better)", "strong"),
    ]
    x = 22
    for proxy in proxies:
        out += [mark(proxy, x, 50), text(x + 13, 54.5, samples.titles[proxy], "strong" if proxy == "poolscope" else "")]
        x += 44 + 7.6 * len(samples.titles[proxy])
    for tenth in range(0, int(LIMIT * 10) + 1, 5):
        at = x_of(tenth / 10)
        line = "one" if tenth == 10 else "grid"
        label = "HAProxy" if tenth == 10 else f"{tenth / 10:g}"
        out += [f'<line class="{line}" x1="{at:.1f}" y1="{TOP - 8}" x2="{at:.1f}" y2="{bottom}"/>',
                text(at, TOP - 14, label, "small faint", "middle")]
    for number, (title, ratios) in enumerate(rows):
        y = TOP + ROW * number + ROW / 2
        out += [f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"/>',
                text(LEFT - 12, y + 4.5, title, "", "end")]
        beyond = WIDTH - RIGHT + 16
        # Ours is drawn last, above the others.
        for proxy in sorted((p for p in proxies if ratios[p] is not None), key=lambda p: p == "poolscope"):
            ratio = max(ratios[proxy], 0)
            if ratio <= LIMIT:
                out.append(mark(proxy, x_of(ratio), y))
                continue
            out += [mark(proxy, beyond, y), text(beyond + 10, y + 4, f"{ratio:.1f}", "small faint")]
            beyond += 42
        ours = ratios.get("poolscope")
        if ours is not None and ours <= LIMIT:
            out.append(text(x_of(max(ours, 0)), y - 9, f"{ours:.2f}", "small poolscope strong", "middle"))
    facts = samples.facts
    note = ", ".join(facts[key] for key in ("machine", "rounds") if key in facts)
    busy, _ = samples.other_cpus()
    if busy is not None and busy > NOISE_CPUS:
        note += f"; not a quiet machine: {busy:.1f} CPUs were busy with other work"
    out += [text(16, height - 12, note, "small faint"), "</svg>"]
    return "\n".join(out) + "\n"
