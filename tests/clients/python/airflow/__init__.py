"""Stands in for Apache Airflow, for its OpenFaaS hook, which is the published one.

Airflow brings a scheduler, web servers and a database layer along, too much for a test to install. The hook imports
three things of it: the version, the base class of hooks and an exception. These are here, and in
`providers/common/compat/sdk.py`.
"""

from pkgutil import extend_path

# The hook itself is in the folder of the same name among the installed packages. Airflow extends its path, too.
__path__ = extend_path(__path__, __name__)

__version__ = "3.3.2"
