"""`tuner doctor`: whether a search could run here, or on a cluster."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tuner.cli.options import Command, json_option

if TYPE_CHECKING:
    from tuner.cluster.findings import Finding


@click.command("doctor", cls=Command, prints=True, short_help="Say whether a search could run here, or on a cluster.")
@click.option("--address", metavar="ADDRESS", help="A cluster: HOST:6379 from inside, http://head:8265 from anywhere.")
@click.option("--storage-path", default="runs", metavar="DIR", show_default=True, help="Folder or URI of the runs.")
@json_option
def command(address: str | None, storage_path: str, as_json: bool) -> int:
    """Looks at versions, GPUs, bitsandbytes, Ray and its token, open ports, storage, disk, the hub, and where the
    packages come from; with --address on every node of that cluster as well.

    Green is fine, amber works with a drawback, red does not work; each with its remedy. Exit code 1 where one is red.
    """
    from tuner.cli.output import answer_json
    from tuner.cluster.doctor import examine_machine
    from tuner.cluster.findings import Level, worst

    findings: Iterable[Finding]
    if address is None:
        findings = examine_machine(storage_path)
    elif address.startswith(("http://", "https://")):
        findings = _from_outside(address, storage_path)
    else:
        findings = _from_inside(address, storage_path)
    told: list[Finding] = []
    for finding in findings:
        told.append(finding)
        if not as_json:
            _show(finding)
    level = worst(told)
    if as_json:
        answer_json({"level": str(level), "findings": [finding.to_dict() for finding in told]})
    return 1 if level is Level.RED else 0


def _show(finding: Finding) -> None:
    from tuner.cli.output import answer
    from tuner.report.lines import clean, line

    style = {"green": "good", "amber": "warn", "red": "bad"}[finding.level]
    name = f"{finding.what:<13} "
    where = "" if finding.where == "this machine" else f"{finding.where}: "
    answer([line((f"{finding.level:<6} ", style), (name, "strong"), (where, "dim"), clean(finding.text))])
    if finding.remedy:
        answer([line((f"{'':<21}try: ", "dim"), clean(finding.remedy))])


def _from_inside(address: str, storage_path: str) -> Iterable[Finding]:
    """Examines a cluster that this machine joins for it."""
    import tempfile

    from tuner.cluster.doctor import examine_cluster
    from tuner.ray_cluster.session import dashboard_url, ray_session

    with tempfile.TemporaryDirectory(prefix="tuner-") as folder, ray_session(address, Path(folder, "driver.log")):
        return list(examine_cluster(storage_path, dashboard_url()))


def _from_outside(address: str, storage_path: str) -> Iterable[Finding]:
    """Examines a cluster through its job server: the same command runs there as a job."""
    import time

    from tuner.cluster.findings import Finding, Level
    from tuner.cluster.jobs import Cluster
    from tuner.cluster.parcel import pack_code
    from tuner.cluster.payload import make_errand, require_shared

    require_shared(storage_path)
    cluster = Cluster(address)
    yield Finding("this machine", "cluster", Level.GREEN, f"{cluster.address} answers, Ray {cluster.ray_version}")
    arguments = ["doctor", "--address", "auto", "--storage-path", storage_path, "--json"]
    errand = make_errand("doctor", arguments, str(int(time.time())))
    answer: dict[str, Any] | None = cluster.run(errand, pack_code())
    if answer is None:
        said = cluster.log(errand.submission_id).strip().splitlines()
        text = f"the job {errand.submission_id} there gave no answer: {said[-1] if said else 'its log is empty'}"
        yield Finding("this machine", "cluster", Level.RED, text, f"its log is on the page Jobs of {cluster.address}")
        return
    for found in answer["findings"]:
        yield Finding(**{**found, "level": Level(found["level"])})
