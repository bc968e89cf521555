"""`source.subject`: messages of core NATS, of the platform's servers or (with `secretRef`) of others."""

from dataclasses import dataclass
from typing import Final

from kappa_api.fields import Reader
from kappa_api.secretref import read_secret_ref

MAX_CHARACTERS: Final = 512


@dataclass(frozen=True, slots=True)
class Subject:
    """`subject` may have wildcards. `secret`: of the servers; empty: the platform's."""

    subject: str
    secret: str = ""


def read(reader: Reader) -> Subject:
    """Reads `spec.source.subject`."""
    subject = reader.string("subject", required=True)
    if subject and (fault := subject_fault(subject)):
        reader.fault("subject", fault)
    found = Subject(subject=subject, secret=read_secret_ref(reader, required=False))
    reader.unknown()
    return found


def subject_fault(text: str) -> str:
    """What is wrong with a subject that may have wildcards (NATS: subject-based messaging), or an empty string."""
    if not 0 < len(text) <= MAX_CHARACTERS or any(letter.isspace() or letter < " " for letter in text):
        return f"must be a subject of 1 to {MAX_CHARACTERS} characters without spaces"
    tokens = text.split(".")
    if not all(tokens):
        return f"{text[:80]!r} has an empty token: dots stand between tokens only"
    if any(token != ">" and ">" in token for token in tokens) or ">" in tokens[:-1]:
        return f"{text[:80]!r}: > stands for all further tokens, alone and at the end"
    if any(token != "*" and "*" in token for token in tokens):
        return f"{text[:80]!r}: * stands for one whole token"
    return ""
