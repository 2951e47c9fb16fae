"""The life of a process that checks one environment, in this Python or in another."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
from typing import Any, Union

from coterie.python_envs.check.check import check_env
from coterie.python_envs.check.findings import Beat, Finding, Report
from coterie.python_envs.process import become_worker
from coterie.python_envs.workers.messages import error_content, error_of, spec_of

News = Union[Beat, Finding, Report, Exception]


def work(connection: Any, job: dict[str, Any]) -> None:
    """In this Python; ``job`` holds the arguments of ``check_env``."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    become_worker(parent.sentinel)
    serve(connection, job, None)


def serve(connection: Any, job: dict[str, Any], buffer: Any) -> None:
    """In another Python: says what is called and found, and in the end the report."""
    del buffer

    def tell(news: Beat | Finding) -> None:
        connection.send_bytes(_content(news))

    try:
        report: Report | Exception = check_env(**job, tell=tell)
    except Exception as error:
        report = error
    connection.send_bytes(_content(report))


def _content(news: News) -> bytes:
    if isinstance(news, Beat):
        content: Any = tuple(news)
    else:
        content = error_content(news) if isinstance(news, Exception) else dataclasses.asdict(news)
    kind = "Exception" if isinstance(news, Exception) else type(news).__name__
    return json.dumps([kind, content]).encode()


def news_of(message: bytes, python: str = "") -> News:
    """What such a process said; ``python`` is where it runs, if that is to be said of an error."""
    kind, content = json.loads(message)
    if kind == "Beat":
        return Beat(*content)
    if kind == "Finding":
        return Finding(**content)
    if kind == "Exception":
        return error_of(content, python)
    spec = None if content["spec"] is None else spec_of(content["spec"])
    findings = tuple(Finding(**finding) for finding in content["findings"])
    own = {"findings": findings, "spec": spec, "lengths": tuple(content["lengths"])}
    return Report(**{**content, **own})
