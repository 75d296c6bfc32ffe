"""What every proxy is put through."""

import json
import subprocess
import time
from dataclasses import dataclass

from proxies import WIRELOAD

KB, MB = 1024, 1024 * 1024
TIME_WAIT_REUSE_SECONDS = 1.5


@dataclass
class Scenario:
    name: str
    # The head of its column.
    title: str
    mode: str
    conns: int
    size: int = 0

    @property
    def is_idle(self):
        return self.mode == "idle"

    @property
    def is_large(self):
        """Whether cost by the gigabyte says more than cost by the operation."""
        return self.size >= 64 * KB

    def run(self, proxy, server_pid, seconds):
        """One measurement; where it fails, its only entry is the reason."""
        command = [WIRELOAD, self.mode, "--target", proxy.address, "--conns", str(self.conns), "--secs", str(seconds)]
        if self.size:
            command += ["--size", str(self.size)]
        if proxy.pid:
            command += ["--pid", str(proxy.pid)]
        if not self.is_idle:
            command += ["--server-pid", str(server_pid)]
        if self.mode == "connect":
            # The connections of the one before us wait in TIME_WAIT, and the kernel searches long for a port to the
            # same server until it may use theirs again, which is after a second.
            time.sleep(TIME_WAIT_REUSE_SECONDS)
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=seconds * 4 + 90, check=False)
        except subprocess.TimeoutExpired:
            return {"error": "timed out"}
        if done.returncode:
            return {"error": done.stderr.strip()[-200:]}
        sample = json.loads(done.stdout)
        if sample.get("failed_workers"):
            return {"error": f"{sample['failed_workers']} workers failed: {done.stderr.strip()[-150:]}"}
        return sample


SCENARIOS = [
    Scenario("ping1", "ping ×1", "ping", 1),
    Scenario("ping16", "ping ×16", "ping", 16),
    Scenario("ping256", "ping ×256", "ping", 256),
    Scenario("find1k", "find 1 KB", "find", 16, KB),
    Scenario("find64k", "find 64 KB", "find", 4, 64 * KB),
    Scenario("find1m", "find 1 MB", "find", 4, MB),
    Scenario("find15m", "find 15 MB", "find", 2, 15 * MB),
    Scenario("insert1m", "insert 1 MB", "insert", 4, MB),
    Scenario("connect", "connect", "connect", 4),
    Scenario("idle2k", "2,000 idle", "idle", 2_000),
    Scenario("idle9k5", "9,500 idle", "idle", 9_500),
]
