"""Writes what clients of OpenFaaS send, byte for byte: record.py DIR GO_CLIENTS, see ../record.

Each client is given a URL of OpenFaaS's documentation, but is connected to a server of this program, which keeps what
comes and answers 202. What is random or says when and where it was recorded is left out: there is none of it.
"""

import importlib.metadata
import json
import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import requests

from airflow.providers.openfaas.hooks.openfaas import OpenFaasHook

GATEWAY = "http://127.0.0.1:8080"
IN_CLUSTER = "http://gateway.openfaas:8080"
CALL_ID = "ee7fcaeb-82b7-4834-b677-45005c5f0b1b"

# What the clients look for in the answer to a call.
ANSWER = (
    b"HTTP/1.1 202 Accepted\r\nX-Call-Id: " + CALL_ID.encode() + b"\r\nX-Start-Time: 1795493048888321044\r\n"
    b"Content-Length: 0\r\nConnection: close\r\n\r\n"
)

# A client that is in no registry: its requests follow its source.
FROM_SOURCE = "-from-source"


class Recorder:
    """A server on loopback that keeps the bytes of each request."""

    def __init__(self, folder):
        self.folder = folder
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]

    def record(self, name, send):
        """Has one request sent, and writes it to the file of this name."""
        received = []
        thread = threading.Thread(target=lambda: received.append(self.take()))
        thread.start()
        send()
        thread.join()
        path = self.folder / f"{name}.http"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(received[0])

    def take(self):
        """The next request."""
        self.listener.settimeout(30)
        connection, _ = self.listener.accept()
        with connection:
            connection.settimeout(30)
            received = b""
            while not complete(received):
                some = connection.recv(65536)
                if not some:
                    raise EOFError(f"the connection was closed after {received!r}")
                received += some
            connection.sendall(ANSWER)
        return received


def complete(received):
    """Whether a request has arrived with its body."""
    head, end, body = received.partition(b"\r\n\r\n")
    if not end:
        return False
    length = re.search(rb"(?im)^content-length: *(\d+)", head)
    if re.search(rb"(?im)^transfer-encoding: *chunked", head):
        return body.endswith(b"0\r\n\r\n")
    return len(body) >= int(length[1] if length else 0)


def connect_to(port):
    """Connects this program to a port of loopback, whatever name or address it asks for."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", port))]
    socket.getaddrinfo = lambda *_, **__: found


def airflow(recorder):
    """Apache Airflow's OpenFaaS hook: the published one, on a stand-in for Airflow."""
    os.environ["AIRFLOW_CONN_OPEN_FAAS_DEFAULT"] = json.dumps({"conn_type": "openfaas", "host": IN_CLUSTER})
    client = f"airflow-openfaas-{importlib.metadata.version('apache-airflow-providers-openfaas')}"
    hook = OpenFaasHook(function_name="report")
    run, image = {"day": "2026-11-24", "full": "1"}, {"service": "report", "image": "example.com/report:1"}
    for name, send in {
        "invoke_async_function": lambda: hook.invoke_async_function(run),
        "invoke_function": lambda: hook.invoke_function(run),
        "does_function_exist": hook.does_function_exist,
        # The hook passes on what it is given, and OpenFaaS wants JSON.
        "deploy_function": lambda: hook.deploy_function(False, json.dumps(image)),
        "update_function": lambda: hook.update_function(json.dumps(image)),
    }.items():
        recorder.record(f"{client}/{name}", send)


def python_requests(recorder):
    """The library that most scripts in Python use."""
    client, url = f"python-requests-{requests.__version__}", GATEWAY + "/async-function/env"
    for name, send in {
        "post_json": lambda: requests.post(url, json={"key": "v1"}, headers={"X-Callback-Url": "https://a.example/?x=1"}),
        "post_nothing": lambda: requests.post(url),
        "post_stream": lambda: requests.post(url, data=iter([b"one, ", b"two"])),
        "delete": lambda: requests.delete(f"{GATEWAY}/async-function/{CALL_ID}"),
    }.items():
        recorder.record(f"{client}/{name}", send)


def python_sdk(recorder):
    """OpenFaaS's python-sdk, which is in no registry: a session of requests with a User-Agent of its own."""
    client = f"python-sdk-0.1.0{FROM_SOURCE}"
    session = requests.Session()
    session.headers["User-Agent"] = "openfaas-python-sdk/0.1.0"

    def invoke_async(data=None, params=None, headers=None):
        url = GATEWAY + "/async-function/env.openfaas-fn"
        session.request("POST", url, data=data, headers=headers or {}, params=params, auth=None, timeout=30)

    for name, send in {
        "invoke_function_async": lambda: invoke_async(b"data", headers={"X-Callback-Url": "https://a.example/cb"}),
        "invoke_function_async_without_payload": lambda: invoke_async(params={"verbose": "1"}),
    }.items():
        recorder.record(f"{client}/{name}", send)


def curl(recorder):
    """The commands of OpenFaaS's documentation."""
    version = subprocess.run(["curl", "--version"], check=True, capture_output=True, text=True).stdout.split()[1]
    options = ["curl", "--silent", "--connect-to", f"::127.0.0.1:{recorder.port}"]
    callback = "X-Callback-Url: http://192.168.0.10:8888"
    for name, arguments in {
        "post": [f"{GATEWAY}/async-function/figlet", "--data", "Hi", "--header", callback],
        "delete": ["-i", "-X", "DELETE", f"{GATEWAY}/async-function/{CALL_ID}"],
        # For a gateway that asks for no credentials.
        "post_with_credentials": [f"{GATEWAY}/async-function/figlet", "--data", "hi there", "--user", "admin:secret"],
    }.items():
        send = lambda: subprocess.run(options + arguments, check=True, stdout=subprocess.DEVNULL)
        recorder.record(f"curl-{version}/{name}", send)


def go(recorder, program):
    """The clients in Go: see ../go/main.go."""
    names = subprocess.run([program], check=True, capture_output=True, text=True).stdout.split()
    for name in names:
        client, _, request = name.partition("/")
        send = lambda: subprocess.run([program, name, f"127.0.0.1:{recorder.port}"], check=True)
        recorder.record(f"{client}{FROM_SOURCE}/{request}", send)


def main(folder, go_clients):
    recorder = Recorder(Path(folder))
    curl(recorder)
    go(recorder, go_clients)
    connect_to(recorder.port)
    airflow(recorder)
    python_requests(recorder)
    python_sdk(recorder)


main(*sys.argv[1:])
