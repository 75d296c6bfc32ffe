"""What a fleet of poolscopes means for the Prometheus that scrapes them: a real one, and targets that answer with a
real exposition in which the counters go on."""

import http.server
import json
import random
import re
import socket
import subprocess
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from pathlib import Path

# Counters and the parts of histograms; what they count goes on between two scrapes.
GROWING = re.compile(r"(_total|_count|_sum|_bucket)$")
# More than all targets need to be scraped four times.
LIMIT_SECONDS = 100


class Targets:
    """Every path `/<n>/metrics` is a poolscope of its own."""

    def __init__(self, exposition):
        self.lines = [self.split(line) for line in exposition.splitlines()]
        self.scrapes = 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                body = outer.answer()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = "127.0.0.1:%d" % self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @staticmethod
    def split(line):
        if line.startswith("#"):
            return line, None, False
        series, _, value = line.rpartition(" ")
        return series, float(value), bool(GROWING.search(series.partition("{")[0]))

    def samples(self, turn):
        """Series and values of one scrape: what counted in the original goes on counting, what stood still stands."""
        for series, value, is_growing in self.lines:
            if value is not None:
                grows = is_growing and value
                yield series, f"{int(value * (1 + turn / 100)) + random.randrange(2) if grows else value:.15g}"

    def answer(self):
        self.scrapes += 1
        text = [f"{series} {value}" for series, value in self.samples(self.scrapes)]
        return ("\n".join(text) + "\n").encode()

    def stop(self):
        self.server.shutdown()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def configuration(targets, count, rules, interval):
    return f"""
global: {{ scrape_interval: {interval}s, evaluation_interval: {interval}s }}
rule_files: [ {rules} ]
scrape_configs:
  - job_name: poolscope
    static_configs:
      - targets: [ {", ".join(f"'sidecar-{number}'" for number in range(count))} ]
    relabel_configs:
      - {{ source_labels: [__address__], target_label: instance }}
      - {{ target_label: __address__, replacement: "{targets.address}" }}
"""


def ask(web, query):
    url = f"http://{web}/api/v1/query?query={urllib.parse.quote(query)}"
    with urllib.request.urlopen(url, timeout=20) as answer:
        result = json.loads(answer.read())["data"]["result"]
    return float(result[0]["value"][1]) if result else 0.0


def own(web):
    """What Prometheus says of itself, all series of a metric added up."""
    with urllib.request.urlopen(f"http://{web}/metrics", timeout=20) as answer:
        lines = answer.read().decode().splitlines()
    sums = {}
    for line in lines:
        if not line.startswith("#"):
            series, _, value = line.rpartition(" ")
            name = series.partition("{")[0]
            sums[name] = sums.get(name, 0) + float(value)
    return sums


def bytes_a_sample(promtool, exposition, hours=2, interval=15):
    """What a sample takes on disk, in a block as Prometheus writes them."""
    targets = Targets(exposition)
    targets.stop()
    turns = hours * 3600 // interval
    with tempfile.TemporaryDirectory(prefix="scale-") as directory:
        file, blocks = Path(directory, "samples"), Path(directory, "blocks")
        count = 0
        # A whole block: they begin at multiples of two hours.
        start = int(time.time()) // 7200 * 7200 - 4 * 7200
        with open(file, "w", encoding="utf-8") as out:
            for turn in range(turns):
                for series, value in targets.samples(turn):
                    print(series, value, start + turn * interval, file=out)
                    count += 1
            print("# EOF", file=out)
        subprocess.run([promtool, "tsdb", "create-blocks-from", "openmetrics", file, blocks], check=True,
                       stdout=subprocess.DEVNULL)
        size = sum(chunk.stat().st_size for chunk in blocks.glob("*/chunks/*"))
    return size / count


def measure(program, exposition, count, rules, interval=5):
    """One Prometheus with `count` targets: what it holds and what it costs after a while."""
    targets = Targets(exposition)
    with tempfile.TemporaryDirectory(prefix="scale-") as directory:
        config, web = Path(directory, "prometheus.yml"), f"127.0.0.1:{free_port()}"
        config.write_text(configuration(targets, count, rules, interval))
        process = subprocess.Popen(
            [program, f"--config.file={config}", f"--storage.tsdb.path={directory}/data",
             f"--web.listen-address={web}", "--log.level=error"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + LIMIT_SECONDS
            # Every target was scraped at least four times: chunks hold samples, and rules have something to say.
            while True:
                time.sleep(1)
                if process.poll() is not None:
                    raise RuntimeError("prometheus ended")
                try:
                    said = own(web)
                except OSError:
                    said = {}
                if said.get("prometheus_tsdb_head_samples_appended_total", 0) and targets.scrapes >= 4 * count:
                    break
                if time.monotonic() > deadline:
                    raise RuntimeError(f"prometheus scraped {targets.scrapes} times only")
            before, began = own(web), time.monotonic()
            time.sleep(4 * interval)
            after, seconds = own(web), time.monotonic() - began
            appended = "prometheus_tsdb_head_samples_appended_total"
            cpu = (after["process_cpu_seconds_total"] - before["process_cpu_seconds_total"]) / seconds
            return {
                "targets": count,
                "series": after["prometheus_tsdb_head_series"],
                "recorded": ask(web, 'count({__name__=~"upstream_app:poolscope_.+"})'),
                "samples_s": (after[appended] - before[appended]) / seconds,
                "rss": after["process_resident_memory_bytes"],
                "cpu": cpu,
                "interval": interval,
            }
        finally:
            process.terminate()
            process.wait()
            targets.stop()
