"""The embedded cluster: a small Kubernetes API server and pods as local processes.

A development tool: one process, everything in memory, lost at stop. What it promises is that a program written against
Kubernetes behaves the same here; `tests/integration/api` holds it to that, against a real Kubernetes.

    __main__ -> cluster -> server -> rest -> store        requests, from the outside in
                        -> controllers                    garbage collection, namespaces, defaults
                        -> kubelet                        pods as processes

Lower modules never import higher ones. `store`, `selectors`, `schema*`, `patch`, `apply`, `table` are pure.
"""
