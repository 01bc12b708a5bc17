"""What the operators of examples/airflow import from the package of this name.

`make airflow` runs them with the published one.
"""


class BaseOperator:
    """A task of a DAG."""

    def __init__(self, *, task_id, retries=0):
        self.task_id, self.retries = task_id, retries


class PokeReturnValue:
    """Whether what a sensor waits for is there, and what its task returns."""

    def __init__(self, is_done, xcom_value=None):
        self.is_done, self.xcom_value = is_done, xcom_value


class BaseSensorOperator(BaseOperator):
    """A task that waits."""

    def __init__(self, *, poke_interval=60, timeout=604800, mode="poke", **options):
        super().__init__(**options)
        self.poke_interval, self.timeout, self.mode = poke_interval, timeout, mode
