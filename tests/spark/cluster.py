"""A cluster of two workers loses one, and the totals are right all the same."""

import json
import re
from pathlib import Path

import pyspark

from tests.segments_made import label_of, write_segment
from tests.spark.running import Program, Programs, programs, wait_until

HOME = Path(pyspark.__file__).parent
VOTES = 2000


def start(everything: Programs, role: str, *words: object) -> Program:
    """Start a master or a worker, on this machine alone."""
    return everything.start(
        *(HOME / "bin" / "spark-class", f"org.apache.spark.deploy.{role}"),
        *("--host", "127.0.0.1", "--webui-port", 0, *words),
        SPARK_HOME=str(HOME),
        SPARK_LOCAL_IP="127.0.0.1",
        SPARK_NO_DAEMONIZE="1",
        SPARK_WORKER_DIR=str(everything.place / "work"),
    )


def add(everything: Programs, number: int) -> None:
    """Add a segment of a server of its own."""
    votes = [("A", n) for n in range(VOTES)]
    server = f"server-{number}"
    label = label_of(1, VOTES, server)
    write_segment(everything.segments / server, server, label, votes)


def test_a_worker_is_lost(tmp_path: Path) -> None:
    """One of two workers is killed, and each vote counts once."""
    with programs(tmp_path) as everything:
        master = start(everything, "master.Master", "--port", 0)
        wait_until(lambda: "spark://" in master.text, "a master")
        [url] = set(re.findall(r"spark://127\.0\.0\.1:\d+", master.text))
        workers = [
            start(everything, "worker.Worker", "--cores", 1, "--memory", "1g", url)
            for _ in range(2)
        ]
        wait_until(lambda: master.text.count("Registering worker") == 2, "two workers")
        add(everything, 0)
        totals = tmp_path / "totals"
        spark = everything.spark(
            *("--master", url, "--every-seconds", "0.1", "--sink", f"files:{totals}")
        )
        wait_until(lambda: "batch 0: " in spark.text, "a batch")
        workers[0].kill()
        for number in range(1, 6):
            add(everything, number)
        expected = 6 * sum(range(VOTES))

        def newest() -> dict[str, int]:
            *_, file = sorted(totals.glob("*.json"))
            found: dict[str, int] = json.loads(file.read_text())["totals"]
            return found

        wait_until(lambda: newest() == {"A": expected}, f"{expected} in all")
        spark.process.terminate()
        assert spark.wait() == 0, spark.text
