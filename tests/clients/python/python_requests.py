"""Sends requests on one requests.Session, as a script in Python does.

python_requests.py URL STEPS: the steps are a JSON array of what `Session.request` takes, with `path` in the URL's place.
JSON has no bytes, tuples and generators, so there are three more: `hex` for a body of bytes, `chunks` for one that is
sent while it is made, `fails` for a step of which `raise_for_status` is asked. Prints {"answers": […], "connections": N}.
"""

import json
import sys

import requests


def send(session, url, step):
    path, fails = step.pop("path"), step.pop("fails", False)
    if "hex" in step:
        step["data"] = bytes.fromhex(step.pop("hex"))
    if "chunks" in step:
        step["data"] = (chunk.encode() for chunk in step.pop("chunks"))
    response = session.request(step.pop("method", "POST"), url + path, timeout=30, **step)
    answer = {
        "status": response.status_code,
        # Any case will do: requests takes no notice of it.
        "callId": response.headers.get("X-Call-Id"),
        "duplicate": response.headers.get("X-Call-Duplicate"),
        "text": response.text,
    }
    if fails:
        try:
            response.raise_for_status()
        except requests.HTTPError as error:
            answer["raised"] = str(error)
    return answer


def main(url, steps):
    # The events of Python itself: the pool of connections does not count one that it opens again.
    connections = []
    sys.addaudithook(lambda event, _: connections.append(event) if event == "socket.connect" else None)
    with requests.Session() as session:
        answers = [send(session, url, step) for step in json.loads(steps)]
    print(json.dumps({"answers": answers, "connections": len(connections)}))


main(*sys.argv[1:])
