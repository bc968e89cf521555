"""The verbs of the API, one small function each: read the parameters, call `Rest`, encode the answer."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from aiohttp import web

from kappa_local import codec, errors, lists, patch, reviews, table, tokens, watch
from kappa_local.lists import Shape
from kappa_local.requestinfo import RequestInfo
from kappa_local.resources import Resource
from kappa_local.rest import DeleteOptions, Rest
from kappa_local.store import Entry
from kappa_local.types import Key, Obj
from kappa_local.writes import WriteOptions

_PATCH_TYPES = (patch.JSON, patch.MERGE, patch.STRATEGIC, patch.APPLY)


class LogReader(Protocol):
    """Where pod logs come from: the kubelet."""

    def logs(self, pod: Obj, query: Mapping[str, str]) -> AsyncIterator[bytes]: ...


@dataclass
class Call:
    """One request, parsed."""

    rest: Rest
    logs: LogReader
    request: web.BaseRequest
    info: RequestInfo
    resource: Resource
    body: bytes

    @property
    def query(self) -> Mapping[str, str]:
        return self.request.query

    @property
    def namespace(self) -> str:
        return self.info.namespace or ""

    @property
    def key(self) -> Key:
        return (self.namespace if self.resource.namespaced else "", self.info.name)

    def flag(self, name: str) -> bool:
        return self.query.get(name, "").lower() in ("true", "1")

    def decoded(self) -> Any:
        return codec.loads(self.body, self.request.headers.get("Content-Type", "application/json"))

    def write_options(self) -> WriteOptions:
        agent = self.request.headers.get("User-Agent", "unknown")
        dry_run = self.query.get("dryRun", "")
        if dry_run not in ("", "All"):
            message = f'Unsupported value: "{dry_run}": supported values: "All"'
            raise errors.invalid("", "", "", [errors.Cause("FieldValueNotSupported", message, "dryRun")])
        return WriteOptions(
            manager=self.query.get("fieldManager") or agent.split("/")[0].split(" ")[0],
            dry_run=dry_run == "All",
            validation=self.query.get("fieldValidation") or "Warn",
            force=self.flag("force"),
        )


async def handle(call: Call) -> web.StreamResponse:
    method, info, resource = call.request.method, call.info, call.resource
    if (
        resource.namespaced
        and info.namespace is None
        and (info.name or method not in ("GET", "HEAD", "DELETE", "POST"))
    ):
        raise errors.no_such_resource()
    if info.subresource:
        return await _subresource(call)
    if method == "HEAD":
        method = "GET"
    if not info.name:
        match method:
            case "GET":
                return await _watch(call, "") if call.flag("watch") else _list(call)
            case "POST" if "create" in resource.verbs:
                return reviews.answer(call) if resource.verbs == ("create",) else _create(call)
            case "DELETE" if resource.namespaced is False or info.namespace is not None:
                return _delete_collection(call)
        raise errors.method_not_allowed()
    match method:
        case "GET" if call.flag("watch"):
            return await _watch(call, info.name)
        case "GET":
            return _object(call, call.rest.get(resource, call.key))
        case "PUT":
            return _update(call, "")
        case "PATCH":
            return _patch(call, "")
        case "DELETE":
            return _delete(call)
    raise errors.method_not_allowed()


async def _subresource(call: Call) -> web.StreamResponse:
    name, method, resource = call.info.subresource, call.request.method, call.resource
    if name == "status" and resource.status:
        match method:
            case "GET":
                return _object(call, call.rest.get(resource, call.key))
            case "PUT":
                return _update(call, "status")
            case "PATCH":
                return _patch(call, "status")
        raise errors.method_not_allowed()
    if name == "scale" and resource.scale is not None:
        return _scale(call)
    if name == "log" and "log" in resource.subresources and method == "GET":
        return await _log(call)
    if name == "token" and "token" in resource.subresources and method == "POST":
        return answer(tokens.request(call.rest, call.namespace, call.info.name, call.decoded()), 201)
    if name == "eviction" and "eviction" in resource.subresources and method == "POST":
        eviction = call.decoded()
        options = _delete_options(call, eviction.get("deleteOptions") or {})
        call.rest.delete(resource, call.key, options)
        return answer({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}, 201)
    if name == "finalize" and resource.kind == "Namespace" and method == "PUT":
        return _object(call, call.rest.get(resource, call.key))
    raise errors.no_such_resource()


def answer(body: Obj, status: int = 200, warnings: list[str] | None = None) -> web.Response:
    return _raw(codec.dumps(body), status, warnings)


def _raw(body: bytes, status: int = 200, warnings: list[str] | None = None) -> web.Response:
    response = web.Response(body=body, status=status, content_type="application/json")
    for text in warnings or ():
        escaped = text.replace("\\", "\\\\").replace('"', '\\"')
        response.headers.add("Warning", f'299 - "{escaped}"')
    return response


def _object(call: Call, entry: Entry, status: int = 200, warnings: list[str] | None = None) -> web.Response:
    """One object in the form that the client accepts."""
    form = lists.shape(call.request.headers.get("Accept", ""), call.query)
    return _raw(_encode(call.resource, entry, form, {"resourceVersion": str(entry.rv)}), status, warnings)


def _encode(resource: Resource, entry: Entry, form: Shape, meta: Obj, *, headers: bool = True) -> bytes:
    if form.form == "Table":
        return codec.dumps(
            table.table(resource, [entry], include=form.include, now=datetime.now(UTC), meta=meta, headers=headers)
        )
    if form.form == "PartialObjectMetadata":
        return codec.dumps(lists.partial(entry))
    return codec.encode(resource, entry)


def _list(call: Call) -> web.StreamResponse:
    form = lists.shape(call.request.headers.get("Accept", ""), call.query)
    return _raw(lists.answer(call.rest, call.resource, call.info.namespace, call.query, form))


def _create(call: Call) -> web.StreamResponse:
    options = call.write_options()
    given = call.decoded()
    if isinstance(given, dict) and call.resource.stored_as is not None:
        given = codec.inbound(call.resource, given)
    resource = _kept(call)
    namespace = call.namespace
    if resource.namespaced and call.info.namespace is None:
        raise errors.method_not_allowed()
    return _object(call, call.rest.create(resource, namespace, given, options), 201, options.warnings)


def _kept(call: Call) -> Resource:
    """The resource that the objects are kept as: another API's, for events.k8s.io."""
    stored = call.resource.stored_as
    if stored is None:
        return call.resource
    found = call.rest.registry.find(*stored, call.resource.plural)
    assert found is not None
    return found


def _update(call: Call, subresource: str) -> web.StreamResponse:
    options = call.write_options()
    given = call.decoded()
    if isinstance(given, dict) and call.resource.stored_as is not None:
        given = codec.inbound(call.resource, given)
    entry = call.rest.update(_kept(call), call.key, given, options, subresource)
    return _object(call, entry, 200, options.warnings)


def _patch(call: Call, subresource: str) -> web.StreamResponse:
    content_type = call.request.headers.get("Content-Type", "").partition(";")[0].strip()
    if content_type not in _PATCH_TYPES:
        raise errors.unsupported_media_type(_PATCH_TYPES)
    options = call.write_options()
    body = call.decoded()
    if isinstance(body, dict) and call.resource.stored_as is not None:
        body = {
            name: value
            for name, value in codec.inbound(call.resource, body).items()
            if name not in ("apiVersion", "kind")
        }
    if content_type == patch.APPLY and not call.query.get("fieldManager"):
        cause = errors.Cause("FieldValueRequired", "Required value: is required for apply patch", "fieldManager")
        raise errors.invalid("meta.k8s.io", "PatchOptions", "", [cause])
    entry, made = call.rest.patch(_kept(call), call.key, content_type, body, options, subresource)
    return _object(call, entry, 201 if made else 200, options.warnings)


def _scale(call: Call) -> web.StreamResponse:
    if call.request.method == "GET":
        return answer(reviews.scale_of(call.resource, call.rest.get(call.resource, call.key).obj))
    if call.request.method not in ("PUT", "PATCH"):
        raise errors.method_not_allowed()
    given = call.decoded()
    if call.request.method == "PATCH":
        current = reviews.scale_of(call.resource, call.rest.get(call.resource, call.key).obj)
        kind = call.request.headers.get("Content-Type", "").partition(";")[0].strip()
        given = patch.json_patch(current, given) if kind == patch.JSON else patch.merge_patch(current, given)
    replicas = (given.get("spec") or {}).get("replicas", 0)
    if not isinstance(replicas, int) or replicas < 0:
        message = f"Invalid value: {replicas}: must be greater than or equal to 0"
        raise errors.invalid(
            "autoscaling", "Scale", call.info.name, [errors.Cause("FieldValueInvalid", message, "spec.replicas")]
        )
    version = (given.get("metadata") or {}).get("resourceVersion")
    entry = call.rest.scale(call.resource, call.key, replicas, call.write_options(), version)
    return answer(reviews.scale_of(call.resource, entry.obj))


def _delete_options(call: Call, body: Obj) -> DeleteOptions:
    """Options of a delete, from its body or its query (the body wins, as in the real server)."""
    grace = body.get("gracePeriodSeconds", call.query.get("gracePeriodSeconds"))
    propagation = body.get("propagationPolicy", call.query.get("propagationPolicy"))
    orphan = body.get("orphanDependents")
    if propagation is None and orphan is not None:
        propagation = "Orphan" if orphan else "Background"
    if propagation not in (None, "Foreground", "Background", "Orphan"):
        message = f'Unsupported value: "{propagation}": supported values: "Foreground", "Background", "Orphan"'
        raise errors.invalid(
            "meta.k8s.io", "DeleteOptions", "", [errors.Cause("FieldValueNotSupported", message, "propagationPolicy")]
        )
    dry_run = (
        body.get("dryRun") or call.query.getall("dryRun", []) if hasattr(call.query, "getall") else body.get("dryRun")
    )
    return DeleteOptions(
        grace=None if grace is None else int(grace),
        propagation=propagation,
        preconditions=body.get("preconditions") or {},
        dry_run=bool(dry_run),
    )


def _delete(call: Call) -> web.StreamResponse:
    options = _delete_options(call, call.decoded() if call.body else {})
    done = call.rest.delete(call.resource, call.key, options)
    if not done.gone or call.resource.kind == "Pod":
        return _object(call, done.entry)
    details: Obj = {"name": call.info.name}
    if call.resource.group:
        details["group"] = call.resource.group
    details |= {"kind": call.resource.plural, "uid": done.entry.obj["metadata"]["uid"]}
    return answer({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})


def _delete_collection(call: Call) -> web.StreamResponse:
    options = _delete_options(call, call.decoded() if call.body else {})
    chosen = call.rest.select(call.resource, call.info.namespace, lists.selector(call.resource, call.query))
    for entry in chosen:
        call.rest.delete(call.resource, entry.key, options)
    meta = {"resourceVersion": str(call.rest.store.version)}
    return _raw(lists.encode(call.resource, chosen, meta, Shape()))


async def _watch(call: Call, name: str) -> web.StreamResponse:
    query = call.query
    since = lists.version_of(query)
    request = watch.WatchRequest(
        resource=call.resource,
        namespace=call.info.namespace,
        selector=lists.selector(call.resource, query, name),
        since=None if since == 0 or call.flag("sendInitialEvents") else since,
        timeout=float(query.get("timeoutSeconds") or random.uniform(1800, 3600)),
        bookmarks=call.flag("allowWatchBookmarks"),
        send_initial=call.flag("sendInitialEvents"),
    )
    form = lists.shape(call.request.headers.get("Accept", ""), query)
    first = True

    def encode(kind: str, entry: Entry) -> bytes:
        nonlocal first
        if kind == "BOOKMARK" and form.form != "Table":
            return codec.encode(call.resource, entry)
        encoded = _encode(call.resource, entry, form, {"resourceVersion": str(entry.rv)}, headers=first)
        first = False
        return encoded

    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    response.enable_chunked_encoding()
    chunks = watch.stream(call.rest.store, request, encode)
    await response.prepare(call.request)
    try:
        async for chunk in chunks:
            await response.write(chunk)
    except errors.ApiError as e:
        await response.write(watch.error_line(e))
    finally:
        await chunks.aclose()  # type: ignore[attr-defined]
    await response.write_eof()
    return response


async def _log(call: Call) -> web.StreamResponse:
    pod = call.rest.get(call.resource, call.key).obj
    chunks = call.logs.logs(pod, call.query)
    first = await anext(chunks, b"")
    response = web.StreamResponse(headers={"Content-Type": "text/plain"})
    response.enable_chunked_encoding()
    await response.prepare(call.request)
    if first:
        await response.write(first)
    async for chunk in chunks:
        await response.write(chunk)
    await response.write_eof()
    return response
