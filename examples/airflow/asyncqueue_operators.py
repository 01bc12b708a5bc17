"""Runs functions as tasks of Apache Airflow 3, through the gateway of AsyncQueue.

Put this file and ../python/asyncqueue_client.py into the folder of the DAGs, or into `plugins`. In a DAG:

    submit = SubmitCallOperator(
        task_id="submit", gateway_url="http://asyncqueue-gateway.openfaas:8080", function="report", body="{{ ds }}"
    )
    CallResultSensor(
        task_id="result",
        gateway_url="http://asyncqueue-gateway.openfaas:8080",
        call_id=submit.output,
        mode="reschedule",
        poke_interval=10,
        timeout=3600,
    )

With `mode="reschedule"`, no slot of a worker of Airflow is in use while the function runs. A gateway that is not
available fails the task: give both tasks `retries`.
"""

from airflow.sdk import BaseOperator, BaseSensorOperator, PokeReturnValue
from airflow.sdk.exceptions import AirflowFailException
from asyncqueue_client import AsyncQueue, CallFailed


class SubmitCallOperator(BaseOperator):
    """Stores a call and returns its id. A retry of the task finds the call that it has stored before."""

    template_fields = ("function", "body")

    def __init__(self, *, gateway_url, function, body="", keep_result="24h", **options):
        super().__init__(**options)
        self.gateway_url, self.function, self.body, self.keep_result = gateway_url, function, body, keep_result

    def execute(self, context):
        task = context["ti"]
        key = f"{task.dag_id}/{task.run_id}/{task.task_id}/{task.map_index}"
        queue = AsyncQueue(self.gateway_url)
        return queue.submit(self.function, self.body.encode(), keep_result=self.keep_result, key=key)


class CallResultSensor(BaseSensorOperator):
    """Waits for the result of a call and returns its body. A call that failed fails the task, without retries."""

    template_fields = ("call_id",)

    def __init__(self, *, gateway_url, call_id, **options):
        super().__init__(**options)
        self.gateway_url, self.call_id = gateway_url, call_id

    def poke(self, context):
        try:
            response = AsyncQueue(self.gateway_url).result(self.call_id)
        except CallFailed as error:
            raise AirflowFailException(str(error)) from error
        if response is None:
            return PokeReturnValue(is_done=False)
        return PokeReturnValue(is_done=True, xcom_value=response.text)
