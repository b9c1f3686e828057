#!/usr/bin/env python3
"""Runs a command elsewhere as if it ran here: arguments, standard streams and exit code go over a Unix socket.

relay.py serve SOCKET COMMAND   runs COMMAND with the arguments of each call
relay.py call SOCKET ARGUMENT…  has it run, and ends with its exit code

So the `multipass` on a test machine reaches the run outside, which alone can start machines, as the real client
reaches its daemon.
"""

import json
import os
import socket
import subprocess
import sys
import threading


def serve(path, command):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=answer, args=(connection, command), daemon=True).start()


def answer(connection, command):
    request, streams, _, _ = socket.recv_fds(connection, 1 << 20, 3)
    ended = subprocess.run([command, *json.loads(request)], stdin=streams[0], stdout=streams[1], stderr=streams[2])
    for stream in streams:
        os.close(stream)
    connection.send(bytes([ended.returncode & 0xFF]))
    connection.close()


def call(path, arguments):
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    socket.send_fds(connection, [json.dumps(arguments).encode()], [0, 1, 2])
    code = connection.recv(1)
    return code[0] if code else "the other side is gone"


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2], sys.argv[3])
    sys.exit(call(sys.argv[2], sys.argv[3:]))
