"""Errors of the caller: a resource that says something Kappa cannot do. Each names the field and the remedy."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with one field.

    `field` is a path as Kubernetes writes it (`spec.env[1].name`); `message` says what is wrong and what to
    write instead.
    """

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


class SpecError(ValueError):
    """A resource that is not valid; `problems` holds every fault that was found, in the order of the document."""

    def __init__(self, kind: str, namespace: str, name: str, problems: tuple[Problem, ...]) -> None:
        self.kind, self.namespace, self.name, self.problems = kind, namespace, name, problems
        super().__init__("; ".join(str(problem) for problem in problems))
