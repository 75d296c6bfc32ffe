"""The proxies that are compared: how each is started on free loopback ports, and how it is ended."""

import os
import re
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TOOLS = ROOT / ".tools"
POOLSCOPE = ROOT / "target/release/poolscope"
WIRELOAD = ROOT / "target/wireload/release/wireload"

# Below the range from which the kernel takes the ports of outgoing connections.
PORTS = iter(range(20_000, 32_000))


def free_port():
    for port in PORTS:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port between 20000 and 32000")


@dataclass
class Proxy:
    """One column of the comparison. Words of the form @name@ in arguments and configuration are filled in."""

    name: str
    title: str
    argv: list
    config: str = ""
    version_flag: str = "-v"
    # Scenarios in which it would measure what another entry measures already.
    skips: str = "^$"
    process: subprocess.Popen = None
    address: str = ""
    log: Path = None
    dirs: list = field(default_factory=list)

    @property
    def pid(self):
        return self.process.pid if self.process else None

    def wants(self, scenario):
        return not re.search(self.skips, scenario)

    def version(self):
        if not self.argv:
            return None
        program = self.argv[0].replace("@tools@", str(TOOLS))
        done = subprocess.run([program, self.version_flag], capture_output=True, text=True, check=False)
        found = re.search(r"\d+\.\d+\.\d+", done.stdout + done.stderr)
        return found[0] if found else "?"

    def start(self, upstream):
        """Starts it and waits until a hello passes through."""
        self.address = upstream
        if not self.argv:
            return
        port, directory = free_port(), tempfile.TemporaryDirectory(prefix=f"bench-{self.name}-")
        self.dirs.append(directory)
        # nginx gives up root for its workers, who have to get in here.
        os.chmod(directory.name, 0o755)
        values = {
            "listen": f"127.0.0.1:{port}",
            "listen_port": str(port),
            "admin_port": str(free_port()),
            "upstream": upstream,
            "upstream_port": upstream.rsplit(":", 1)[1],
            "dir": directory.name,
            "tools": str(TOOLS),
            "config": str(Path(directory.name, self.config)),
        }

        def fill(text):
            return re.sub(r"@(\w+)@", lambda found: values[found[1]], text)

        if self.config:
            Path(values["config"]).write_text(fill((HERE / "config" / self.config).read_text()))
        self.log = Path(directory.name, "output.log")
        with open(self.log, "wb") as log:
            # A session of its own, so that ending it takes along whatever it started, and nothing else.
            self.process = subprocess.Popen(
                [fill(word) for word in self.argv],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        self.address = values["listen"]
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline and self.process.poll() is None:
            hello = subprocess.run([WIRELOAD, "hello", "--target", self.address], capture_output=True, check=False)
            if hello.returncode == 0:
                return
            time.sleep(0.05)
        said = self.log.read_text(errors="replace")[-400:]
        self.stop()
        raise RuntimeError(f"{self.title} does not answer: {said}")

    def stop(self):
        if self.process is None:
            return
        for sign in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, sign)
                self.process.wait(5)
                break
            except ProcessLookupError:
                break
            except subprocess.TimeoutExpired:
                continue
        self.process.wait()
        self.process = None


def all_proxies():
    """In the order of the tables. The first is no proxy at all."""
    return [
        Proxy("direct", "direct", []),
        # Defaults throughout: decoding, attribution and metrics are on.
        Proxy("poolscope", "poolscope",
              [str(POOLSCOPE), "serve", "--listen", "@listen@", "--upstream", "@upstream@",
               "--web.listen-address", "127.0.0.1:@admin_port@"],
              version_flag="--version"),
        Proxy("haproxy", "HAProxy", ["@tools@/haproxy/haproxy", "-db", "-f", "@config@"], "haproxy.cfg"),
        # What the kernel alone takes: forwarding with two threads and nothing else.
        Proxy("bare", "bare loop",
              [str(WIRELOAD), "bare", "--listen", "@listen@", "--upstream", "@upstream@"]),
        # It splices only where much is under way, so small messages would tell the same twice.
        Proxy("haproxy-splice", "HAProxy with splice",
              ["@tools@/haproxy/haproxy", "-db", "-f", "@config@"], "haproxy-splice.cfg",
              skips="ping|idle|connect"),
        Proxy("nginx", "nginx stream", ["@tools@/nginx/nginx", "-c", "@config@", "-e", "@dir@/error.log"],
              "nginx.conf"),
        Proxy("envoy", "Envoy tcp_proxy",
              ["@tools@/envoy/envoy", "-c", "@config@", "--concurrency", "2", "--disable-hot-restart",
               "--log-level", "error"],
              "envoy.yaml", version_flag="--version"),
    ]
