"""A wire between this host and a network namespace of its own, which loses and delays packets on command.

    wire.py INTERFACE NEAR FAR

makes an interface with the address NEAR here and one with FAR (of the same /30) in a new namespace, and carries
the packets between the two TUN devices. It prints {"pid": N} when it is up: the namespace is /proc/N/ns/net.
Each line of standard input is one JSON object that says how packets fare from then on:

    {"loss": 0.15}       share of packets that vanish, in both directions
    {"delay": 0.15}      seconds that each packet takes longer, in both directions
    {"idle_drop": 2.5}   packets vanish of TCP connections that were silent for so many seconds

It ends with its standard input. It needs the right to make network namespaces (root).
"""

import array
import ctypes
import fcntl
import heapq
import itertools
import json
import os
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
TCP, SYN = 6, 0x02
libc = ctypes.CDLL(None, use_errno=True)


def ip(*args):
    subprocess.run(["ip", *args], check=True)


def tun(name, address):
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    ip("addr", "add", address + "/30", "dev", name)
    ip("link", "set", name, "up")
    return device


def far_end(address, channel):
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if libc.unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "no network namespace")
    ip("link", "set", "lo", "up")
    device = tun("wire", address)
    channel.sendmsg([b"."], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [device]))])
    while True:
        signal.pause()


class Wire:
    def __init__(self, near, far):
        self.other = {near: far, far: near}
        self.faults = {}
        self.waiting = []
        self.order = itertools.count()
        self.seen = {}
        self.cut = set()

    def flow(self, packet):
        """The ports of a TCP segment, the same in both directions, and its flags."""
        if packet[0] >> 4 != 4 or packet[9] != TCP:
            return None, 0
        header = (packet[0] & 15) * 4
        ports = struct.unpack_from("!HH", packet, header)
        return tuple(sorted(ports)), packet[header + 13]

    def is_lost(self, packet):
        if random.random() < self.faults.get("loss", 0):
            return True
        ports, flags = self.flow(packet)
        now, limit = time.monotonic(), self.faults.get("idle_drop")
        if flags & SYN:
            self.cut.discard(ports)
        elif limit and now - self.seen.get(ports, now) > limit:
            self.cut.add(ports)
        self.seen[ports] = now
        return ports in self.cut

    def put(self, device, packet):
        try:
            os.write(device, packet)
        except OSError:
            pass  # A full queue loses packets, as real ones do.

    def carry(self, device):
        try:
            packet = os.read(device, 65536)
        except BlockingIOError:
            return
        if self.is_lost(packet):
            return
        delay = self.faults.get("delay", 0)
        if delay:
            due = time.monotonic() + delay
            heapq.heappush(self.waiting, (due, next(self.order), self.other[device], packet))
        else:
            self.put(self.other[device], packet)

    def deliver(self):
        """Puts what is due; the seconds until the next is."""
        while self.waiting:
            left = self.waiting[0][0] - time.monotonic()
            if left > 0:
                return left
            _, _, device, packet = heapq.heappop(self.waiting)
            self.put(device, packet)
        return None


def main():
    interface, near_address, far_address = sys.argv[1:]
    mine, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        far_end(far_address, theirs)
    near = tun(interface, near_address)
    _, control, _, _ = mine.recvmsg(1, socket.CMSG_SPACE(4))
    far = array.array("i", control[0][2])[0]
    wire = Wire(near, far)
    sys.stdout.write(json.dumps({"pid": child}) + "\n")
    sys.stdout.flush()
    while True:
        ready, _, _ = select.select([near, far, 0], [], [], wire.deliver())
        for device in ready:
            if device:
                wire.carry(device)
                continue
            line = sys.stdin.readline()
            if not line:
                os.kill(child, signal.SIGKILL)
                return
            wire.faults = json.loads(line)
            sys.stdout.write("{}\n")
            sys.stdout.flush()


main()
