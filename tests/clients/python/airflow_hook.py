"""Calls a method of Airflow's OpenFaasHook, as a task of a DAG does.

airflow_hook.py FUNCTION METHOD [ARGUMENT...]: each argument is JSON. The connection is in
AIRFLOW_CONN_OPEN_FAAS_DEFAULT. Prints {"version": …, "path": …} of the hook and {"returned": …} or {"raised": …} as one
JSON object; the hook's log goes to stderr.
"""

import importlib.metadata
import inspect
import json
import logging
import sys

from airflow.providers.common.compat.sdk import AirflowException
from airflow.providers.openfaas.hooks.openfaas import OpenFaasHook


def main(function, method, *arguments):
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    answer = {
        "version": importlib.metadata.version("apache-airflow-providers-openfaas"),
        "path": inspect.getfile(OpenFaasHook),
    }
    hook = OpenFaasHook(function_name=function)
    try:
        answer["returned"] = getattr(hook, method)(*map(json.loads, arguments))
    except AirflowException as error:
        answer["raised"] = str(error)
    print(json.dumps(answer))


main(*sys.argv[1:])
