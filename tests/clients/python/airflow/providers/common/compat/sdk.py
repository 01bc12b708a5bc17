"""What Airflow's OpenFaaS hook imports from the package of this name: the base class of hooks, and an exception."""

import json
import logging
import os


class AirflowException(Exception):
    """Fails the task that raises it."""


class Connection:
    """Where a hook connects to."""

    def __init__(self, conn_type=None, host=None, **_):
        self.conn_type = conn_type
        self.host = host


class BaseHook:
    """Gives a hook its connections and its log."""

    def __init__(self, logger_name=None):
        self.log = logging.getLogger(logger_name or type(self).__module__)

    @classmethod
    def get_connection(cls, conn_id):
        """The connection in AIRFLOW_CONN_<ID>, as JSON: one of the ways in which Airflow takes it."""
        variable = f"AIRFLOW_CONN_{conn_id.upper()}"
        if variable not in os.environ:
            raise AirflowException(f"the connection `{conn_id}` is not defined: set {variable}")
        return Connection(**json.loads(os.environ[variable]))
