"""What the operators of examples/airflow import from the module of this name."""


class AirflowFailException(Exception):
    """Fails the task that raises it, without retries."""
