"""The kubelet: watches pods and runs each as local processes.

    agent -> worker (one per pod) -> process, probes, env, volumes, logs
    status                           pure: what was observed -> the pod's status

Limits that come with processes instead of containers: one file system (mounts are directories under
$KAPPA_LOCAL_MOUNT_ROOT), one network name space (each pod has a loopback address of its own, and its program must
bind that one), no resource limits, no isolation. Code runs as the user who started kappa_local.
"""
