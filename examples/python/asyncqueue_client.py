"""Calls functions through the gateway of AsyncQueue. Needs the package requests.

Run as a program, it shows each feature once:

    python3 asyncqueue_client.py http://127.0.0.1:8080 figlet
"""

import json
import sys
import time

import requests


class CallFailed(Exception):
    """A call did not end with a status below 400."""

    def __init__(self, call_id, state, status):
        super().__init__(f"call {call_id} ended as {state}, with status {status}")
        self.call_id, self.state, self.status = call_id, state, status


class AsyncQueue:
    """The gateway at a URL, such as http://127.0.0.1:8080."""

    def __init__(self, url, timeout=10):
        self.url, self.timeout = url.rstrip("/"), timeout
        self.session = requests.Session()

    def submit(self, function, body=b"", *, keep_result="1h", delay=None, key=None, callback_url=None, headers=None):
        """Stores a call and returns its id.

        Its result is kept for as long as `keep_result` says. It runs after `delay`, such as "90s". A repeat with the
        same `key` stores nothing, also if it is sent because the answer was lost.
        """
        own = {
            "X-Keep-Result": keep_result,
            "X-Delay": delay,
            "Idempotency-Key": key,
            "X-Callback-Url": callback_url,
        }
        sent = {**(headers or {}), **{name: value for name, value in own.items() if value is not None}}
        return self._request("POST", f"/async-function/{function}", data=body, headers=sent).headers["X-Call-Id"]

    def call(self, function, body=b"", *, wait=30, headers=None):
        """Stores a call, and returns the response of the function if it comes within `wait` seconds, else the call's id."""
        sent = {**(headers or {}), "Prefer": f"wait={wait}"}
        target = f"{self.url}/async-function/{function}"
        response = self.session.post(target, data=body, headers=sent, timeout=wait + self.timeout)
        if response.headers.get("Preference-Applied") == "wait":
            return response  # with the status of the function
        response.raise_for_status()
        return response.headers["X-Call-Id"]

    def result(self, call_id):
        """Returns the result of a call, or None if it has not ended. Raises CallFailed if it failed."""
        response = self._request("GET", f"/async-function/{call_id}/result")
        if response.status_code == 202:
            return None
        state, status = response.headers["X-Call-State"], int(response.headers["X-Function-Status"])
        if state != "done" or status >= 400:
            raise CallFailed(call_id, state, status)
        return response

    def wait_for(self, call_id, seconds, interval=1.0):
        """Returns the result of a call as soon as there is one. Raises TimeoutError if it has not ended in time."""
        deadline = time.monotonic() + seconds
        while (response := self.result(call_id)) is None:
            if time.monotonic() >= deadline:
                raise TimeoutError(f"call {call_id} has not ended within {seconds} s")
            time.sleep(interval)
        return response

    def status(self, call_id):
        """Returns the status of a call, such as {"state": "queued", …}."""
        return self._request("GET", f"/async-function/{call_id}").json()

    def cancel(self, call_id):
        """Cancels a call. Returns False if it had ended."""
        return self._request("DELETE", f"/async-function/{call_id}", accepted=(409,)).status_code != 409

    def submit_batch(self, calls, *, batch_id=None, callback_url=None, cancel_on_failure=False):
        """Stores calls together or not at all. Each is an object such as {"function": "figlet", "body": "hi"}."""
        own = {"X-Batch-Id": batch_id, "X-Callback-Url": callback_url}
        headers = {name: value for name, value in own.items() if value is not None}
        body = "".join(json.dumps(call) + "\n" for call in calls).encode()
        path = "/async-batch?onFailure=cancel" if cancel_on_failure else "/async-batch"
        return self._request("POST", path, data=body, headers=headers).json()["batchId"]

    def batch(self, batch_id):
        """Returns the report of a batch: "state", "counts" and "calls"."""
        return self._request("GET", f"/async-batch/{batch_id}").json()

    def cancel_batch(self, batch_id):
        """Cancels the calls of a batch that have not ended. Returns False if all had ended."""
        return self._request("DELETE", f"/async-batch/{batch_id}", accepted=(409,)).status_code != 409

    def _request(self, method, path, *, accepted=(), **options):
        response = self.session.request(method, self.url + path, timeout=self.timeout, **options)
        if response.status_code not in accepted and not response.ok:
            # The text names what is wrong, and what to do.
            raise requests.HTTPError(f"{response.status_code}: {response.text.strip()}", response=response)
        return response


def main(url, function):
    queue = AsyncQueue(url)

    call_id = queue.submit(function, b"submitted", key=f"example-{time.time_ns()}")
    print("result:", queue.wait_for(call_id, 60, interval=0.2).text)

    response = queue.call(function, b"waited for", wait=30)
    print("response:", response if isinstance(response, str) else response.text)

    later = queue.submit(function, b"later", delay="1h")
    print("state:", queue.status(later)["state"], "cancelled:", queue.cancel(later))

    batch_id = queue.submit_batch([{"function": function, "body": text} for text in ("one", "two")])
    while (report := queue.batch(batch_id))["state"] != "ended":
        time.sleep(0.2)
    print("batch:", report["counts"]["done"], "done, cancelled:", queue.cancel_batch(batch_id))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
