"""Runs the operators of examples/airflow, as a DAG does.

airflow_operators.py GATEWAY-URL FUNCTION BODY: submits a call twice, as a retry does, and waits for its result. Prints
{"airflow": …, "callIds": […], "returned": …} or {…, "raised": …} as one JSON object.
"""

import inspect
import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace

# Airflow logs to the standard output.
stdout, sys.stdout = sys.stdout, sys.stderr

EXAMPLES = Path(__file__).parents[3] / "examples"
sys.path += [str(EXAMPLES / "python"), str(EXAMPLES / "airflow")]

from airflow.sdk import BaseOperator  # noqa: E402
from airflow.sdk.exceptions import AirflowFailException  # noqa: E402
from asyncqueue_operators import CallResultSensor, SubmitCallOperator  # noqa: E402


def main(url, function, body):
    context = {"ti": SimpleNamespace(dag_id="reports", run_id="manual__1", task_id="submit", map_index=-1)}
    submit = SubmitCallOperator(task_id="submit", gateway_url=url, function=function, body=body, retries=2)
    call_ids = [submit.execute(context), submit.execute(context)]
    answer = {"airflow": inspect.getfile(BaseOperator), "callIds": call_ids}
    sensor = CallResultSensor(
        task_id="result", gateway_url=url, call_id=call_ids[0], mode="reschedule", poke_interval=1, timeout=60
    )
    try:
        while not (poked := sensor.poke(context)).is_done:
            time.sleep(0.1)
        answer["returned"] = poked.xcom_value
    except AirflowFailException as error:
        answer["raised"] = str(error)
    print(json.dumps(answer), file=stdout)


main(*sys.argv[1:])
