"""Runs a Python program whose connections leave from a loopback address of their own.

    from_address.py ADDRESS PROGRAM [ARGUMENT...]

In production each instance of a service has its own address. On one machine this gives it one, without
namespaces and without root.
"""

import runpy
import socket
import sys

address, program = sys.argv[1:3]
connect = socket.socket.connect


def connect_from_address(self, target):
    if self.family == socket.AF_INET:
        self.bind((address, 0))
    return connect(self, target)


socket.socket.connect = connect_from_address
sys.argv = sys.argv[2:]
runpy.run_path(program, run_name="__main__")
