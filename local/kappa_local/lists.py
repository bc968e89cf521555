"""Lists: resource versions, paging, and the three shapes a list can have (objects, table, metadata only). Pure but
for the store.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from kappa_local import codec, table
from kappa_local.errors import bad_request, expired, version_too_large
from kappa_local.resources import Resource
from kappa_local.rest import Rest
from kappa_local.selectors import Selector, parse
from kappa_local.store import Entry
from kappa_local.types import Obj


@dataclass(frozen=True)
class Shape:
    """The form that the Accept header asks for: '' objects, 'Table' or 'PartialObjectMetadata'."""

    form: str = ""
    include: str = "Metadata"


def shape(accept: str, query: Mapping[str, str]) -> Shape:
    """The first form in the Accept header that this server speaks."""
    for choice in accept.split(","):
        parameters = dict(part.strip().partition("=")[::2] for part in choice.split(";")[1:])
        form = parameters.get("as", "").removesuffix("List")
        if form in ("Table", "PartialObjectMetadata") and parameters.get("g") == "meta.k8s.io":
            return Shape(form, query.get("includeObject", "Metadata"))
        if choice.partition(";")[0].strip() == "application/json" and not form:
            break
    return Shape()


def selector(resource: Resource, query: Mapping[str, str], name: str = "") -> Selector:
    fields = query.get("fieldSelector", "")
    if name:
        fields = f"metadata.name={name}" + (f",{fields}" if fields else "")
    return parse(query.get("labelSelector", ""), fields, resource.fields)


def version_of(query: Mapping[str, str]) -> int | None:
    """The resourceVersion of a request; None when it is absent."""
    text = query.get("resourceVersion", "")
    if not text:
        return None
    if not text.isdecimal():
        raise bad_request(f'Invalid value: "{text}": strconv.ParseUint: parsing "{text}": invalid syntax')
    return int(text)


def answer(rest: Rest, resource: Resource, namespace: str | None, query: Mapping[str, str], form: Shape) -> bytes:
    """The whole list, or one page of it, encoded."""
    asked = version_of(query)
    if asked is not None and asked > rest.store.version:
        raise version_too_large(asked, rest.store.version)
    entries = rest.select(resource, namespace, selector(resource, query))
    entries, meta = _page(entries, query, rest.store.version)
    return encode(resource, entries, meta, form)


def encode(resource: Resource, entries: list[Entry], meta: Obj, form: Shape) -> bytes:
    if form.form == "Table":
        return codec.dumps(table.table(resource, entries, include=form.include, now=datetime.now(UTC), meta=meta))
    if form.form == "PartialObjectMetadata":
        head: Obj = {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": meta}
        return codec.dumps({**head, "items": [partial(entry) for entry in entries]})
    start = {"kind": resource.list_name, "apiVersion": resource.api_version, "metadata": meta}
    return codec.dumps(start)[:-1] + b',"items":[' + codec.encode_items(resource, entries) + b"]}"


def partial(entry: Entry) -> Obj:
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": entry.obj["metadata"]}


def _page(entries: list[Entry], query: Mapping[str, str], version: int) -> tuple[list[Entry], Obj]:
    """One page and the list's metadata. Pages after the first skip what has been sent and may show later changes;
    the real server shows one moment to all pages.
    """
    limit = int(query.get("limit") or 0)
    token = query.get("continue", "")
    if token:
        if query.get("resourceVersion") not in (None, "", "0"):
            raise bad_request("specifying resource version is not allowed when using continue")
        started, after = _continuation(token)
        if started > version:
            raise expired("The provided continue parameter is too old to display a consistent list result.")
        entries = [entry for entry in entries if entry.key > after]
        version = started
    meta: Obj = {"resourceVersion": str(version)}
    if limit and len(entries) > limit:
        last = entries[limit - 1].key
        meta["continue"] = base64.urlsafe_b64encode(json.dumps([version, *last]).encode()).decode().rstrip("=")
        meta["remainingItemCount"] = len(entries) - limit
        entries = entries[:limit]
    return entries, meta


def _continuation(token: str) -> tuple[int, tuple[str, str]]:
    try:
        version, namespace, name = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        return int(version), (str(namespace), str(name))
    except (ValueError, TypeError) as e:
        raise bad_request(f"continue key is not valid: {e}") from e
