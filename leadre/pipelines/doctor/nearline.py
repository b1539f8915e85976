"""The nearline part: workers, beat, the refresh queue, the stream of behaviors. LEADRE §4.4.1."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leadre.pipelines.doctor.finding import Finding, fault, ok, warning

if TYPE_CHECKING:
    from redis import Redis

LONG_WAIT_S = 3600.0
"""A user who waits longer for a list is told of (ours)."""
_QUEUES = {
    "retrieval": "nobody's list is made anew",
    "ingest": "reported behaviors stay in Redis",
    "indexing": "new ads get no S-IDs",
    "maintenance": "nothing is materialized, summarized, trained or measured",
}
_WORKER = (
    "celery -A workers.app worker -Q {queues} --pool=threads -c 1 --without-gossip --without-mingle --without-heartbeat"
)


def workers(client: Redis) -> list[Finding]:
    """Look which queues a worker serves, and whether beat is there."""
    from leadre.retrieval.presence import present

    there = present(client)
    serving = [process for process in there if process.kind == "worker"]
    served = {queue for process in serving for queue in process.queues}
    lacking = [queue for queue in _QUEUES if queue not in served]
    findings = []
    if serving:
        said = f"{len(serving)} worker{'s' * (len(serving) > 1)}, of {', '.join(sorted(served))}"
        findings.append(ok("workers", said))
    if lacking:
        run = _WORKER.format(queues=",".join(lacking))
        what = "; ".join(f"{queue}: {_QUEUES[queue]}" for queue in lacking)
        findings.append(warning("workers", f"no worker of {what}", run=run))
    beats = sum(process.kind == "beat" for process in there)
    if beats == 0:
        said = "beat does not run: nothing is materialized, summarized or trained by itself"
        findings.append(warning("schedule", said, run="celery -A workers.app beat"))
    elif beats > 1:
        said = f"beat runs {beats} times: everything is asked for as often; end all but one"
        findings.append(warning("schedule", said))
    else:
        findings.append(ok("schedule", "beat was heard of within the last half minute"))
    return findings


def queue(redis_url: str) -> list[Finding]:
    """Look at the refresh queue: who waits, for how long, and who failed too often."""
    from leadre.retrieval.refresh_queue import RefreshQueue

    stats = RefreshQueue.connect(redis_url).stats()
    waiting, longest = sum(stats.depth), max(stats.oldest_s)
    said = f"{waiting:,} users wait for a list, the longest for {longest:,.0f} s"
    findings = [ok("queue", said)]
    if longest > LONG_WAIT_S:
        findings = [warning("queue", f"{said}: more workers, or a larger budget", run="leadre queue")]
    if stats.dead:
        dead = f"{stats.dead:,} users failed three times; the workers' log says `refresh_failed`, and why"
        findings.append(warning("dead-users", dead, run="leadre queue revive"))
    return findings


def stream(client: Redis, *, most: int) -> list[Finding]:
    """Look at the stream of reported behaviors: how much waits, and what could not be written.

    Args:
        client: of LEADRE_REDIS_URL.
        most: LEADRE_STREAM_MAX.
    """
    from leadre.serving.behavior_stream import DEAD, length

    waiting, dead = length(client), int(client.xlen(DEAD))  # type: ignore[arg-type]
    findings = [ok("stream", f"{waiting:,} reported behaviors wait for PostgreSQL")]
    if waiting > most // 2:
        said = f"{waiting:,} reported behaviors wait for PostgreSQL; from {most:,} on reports are refused"
        findings = [fault("stream", said, run="leadre ingest --follow")]
    if dead:
        said = f"{dead:,} entries of the stream could not be written; the log says `behaviors_dead`, and why"
        findings.append(warning("dead-behaviors", said, run="leadre ingest --revive"))
    return findings
