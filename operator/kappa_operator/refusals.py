"""What the API server means when it refuses a pod. Pure."""

import re

from kappa_operator.autoscaler.room import QUOTA

#: How the quota admission of Kubernetes has put it in every version from 1.2 on.
_QUOTA = re.compile(
    r"exceeded quota: (?P<name>[^,]+), requested: (?P<asked>.+), used: (?P<used>.+), limited: (?P<most>.+)"
)


def refusal(message: str) -> tuple[str, str]:
    """(reason, message) for people: which ResourceQuota is used up and of what, or the server's own words."""
    found = _QUOTA.search(message)
    if found is None:
        return "PodRefused", message
    asked, used, most = found["asked"], found["used"], found["most"].strip()
    text = f"ResourceQuota {found['name']} is used up: one more instance needs {asked}; used {used} of {most}"
    return QUOTA, text
