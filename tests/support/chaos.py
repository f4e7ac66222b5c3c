"""Interrupts every command at seeded moments, goes on with the same command, and compares with what nothing disturbed:

    make chaos              200 interruptions; CHAOS_N=20 for fewer

A moment is either right before something happens to a file or a connection (opened for writing, renamed, removed, …) or any
time in a stage. There the process gets SIGINT, SIGTERM or SIGKILL (which is also what the kernel sends where memory runs out),
or the system refuses it more memory, and it is killed where it hangs then. Some of those that go on are interrupted once more.
At the end all files have to be byte for byte those of the undisturbed command, and no answer that was kept may be lost, changed
or there twice. Two things are counted apart: log-probabilities and what is computed from them, which differ from the fifth
digit on when an answer is asked in other company than it would have been; and a training that ran out of memory and went on
with a smaller batch, whose sums are in another order.

Each command runs in a fork of a process that has the libraries imported already, so that a trial takes seconds. Prints a table
and exits with 1 where anything differed. bench/results/chaos-cpu.json is written after each trial, so that ending this program
(Ctrl-C, SIGTERM) loses no more than the trial at hand.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import importlib
import itertools
import json
import os
import platform
import random
import re
import resource
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from articles import invent
from fixed_run import with_gold
from hub_server import TOKEN, HubServer

from data.files import write_json, write_jsonl
from data.readers.rows import document_rows
from data.table import Table, as_text

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "bench" / "results" / "chaos-cpu.json"
KINDS = ("SIGINT", "SIGTERM", "SIGKILL", "memory")
LONGEST = 1800.0  # seconds that a command may take, on however busy a machine, before it counts as hung
LONGEST_WITHOUT_MEMORY = 30.0  # then it is killed, as the kernel would have
HUNG = 1000  # no process ends so
COUNTED = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "shutil.rmtree", "socket.connect"}
SETTINGS = (
    "train.max_steps=3", "train.evaluations=3", "train.effective_batch_size=2", "train.eval_f1_articles=1", "lora.r=4",
    "train.report_to=none", "lora.lora_dropout=0.1", "eval.max_new_tokens=6", "eval.batch_tokens=1", "export.gguf=f16",
)  # fmt: skip
STAGES = ("begin", "data", "plan", "evaluate_base", "train", "evaluate", "export", "card")
REPOSITORY = "tester/Llama-chaos"
# Locks, and what the trainer keeps for going on: all that may differ, beside times.
FREE = re.compile(r"/(\.lock(\.json)?|training_args\.bin)$|/checkpoints(-\d+)?/")
# Times, the commit of the tree that is at work, and the batch, which training makes smaller where memory runs out in it.
TIMES = re.compile(
    r'^ *"(finished|created|seconds|training_seconds|git_commit)": .*\n|[\d.]+ minutes of training'
    r'|^ *"batch": \[[^]]*\],\n',
    re.MULTILINE,
)
LONG_NUMBER = re.compile(r"-?\d+\.\d{5,}(?:e-\d+)?|-?\d+(?:\.\d+)?e-\d+")
CLOSE = 1e-4


@dataclass(frozen=True)
class Job:
    """A command, typed in a folder that holds corpus.jsonl and texts.jsonl. `after`: the job whose result it starts from."""

    name: str
    arguments: tuple[str, ...]
    after: str | None = "run"


JOBS = (
    Job("run", ("run", "--preset", "tiny", "--data", "corpus.jsonl", "--out", "run", "--set", *SETTINGS), None),
    Job("evaluate", ("evaluate", "run", "--grounded")),
    Job("export", ("export", "run", "--gguf", "q8_0")),
    Job("push", ("push", "run", "--repo", REPOSITORY, "--force")),
    Job("extract", ("extract", "--model", "run", "texts.jsonl", "--out", "found.jsonl")),
    Job("extract to CSV", ("extract", "--model", "run", "texts.jsonl", "--out", "found.csv")),
)


@dataclass(frozen=True)
class Moment:
    """`delay` seconds after the event number `event` in a stage, counted from 0."""

    stage: str
    event: int
    delay: float
    kind: str


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code (minus the signal that ended it), its output, the stage in which it was struck."""

    code: int
    output: str
    struck: str | None


class Watch:
    """In the process of a command: counts what happens to files and connections, and strikes at the moment."""

    def __init__(self, job: Job, notes: Path, moment: Moment | None) -> None:
        self.stage = "run: begin" if job.name == "run" else job.name
        self.notes, self.moment, self.events, self.left = notes, moment, [], moment.event if moment else 0

    def __call__(self, event: str, arguments: tuple) -> None:
        if threading.current_thread() is not threading.main_thread() or not self.counts(event, arguments):
            return
        self.events.append((time.monotonic(), self.stage))
        if self.moment and self.stage == self.moment.stage:
            self.left -= 1
            if self.left != -1:
                return
            if self.moment.delay:
                timer = threading.Timer(self.moment.delay, self.strike)
                timer.daemon = True
                timer.start()
            else:
                self.strike()

    def counts(self, event: str, arguments: tuple) -> bool:
        if event != "open":
            return event in COUNTED
        path, mode, flags = arguments
        writes = any(letter in (mode or "") for letter in "wax+") or (flags or 0) & (os.O_WRONLY | os.O_RDWR)
        return bool(writes) and not str(path).startswith(("/dev/", str(self.notes)))

    def strike(self) -> None:
        (self.notes / "struck").write_text(self.stage, encoding="utf-8")
        if self.moment.kind == "memory":
            used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used, used))
        else:
            os.kill(os.getpid(), signal.Signals[self.moment.kind])


def do(job: Job, folder: Path, notes: Path, moment: Moment | None, copies: Path | None) -> Ended:
    """Run a command in `folder`, in a process of its own. `notes`: an empty folder for what is known of it afterwards.

    `copies`: where `folder` is copied to at the start of each stage of a run.
    """
    shutil.rmtree(notes, ignore_errors=True)
    notes.mkdir()
    sys.stdout.flush()
    child = os.fork()
    if not child:
        be_command(job, folder, notes, moment, copies)
    starved = moment is not None and moment.kind == "memory"
    deadline, code = time.monotonic() + (LONGEST_WITHOUT_MEMORY if starved else LONGEST), None
    try:
        while code is None:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                code = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > deadline:
                code = -signal.SIGKILL if starved else HUNG
            else:
                time.sleep(0.005)
    finally:
        if code in (None, HUNG) or starved and not ended:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    struck = notes / "struck"
    output = (notes / "output").read_text(encoding="utf-8", errors="replace")
    return Ended(code, output, struck.read_text(encoding="utf-8") if struck.exists() else None)


def be_command(job: Job, folder: Path, notes: Path, moment: Moment | None, copies: Path | None) -> None:
    """What the forked process does; it never returns."""
    code = 70
    try:
        output = os.open(notes / "output", os.O_WRONLY | os.O_CREAT)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(folder)
        from pipeline import cli, run

        watch, do_stage = Watch(job, notes, moment), run.do_stage

        def noted(run, name, work):
            watch.stage = f"run: {name}"
            if copies:
                shutil.copytree(folder, copies / watch.stage)
            do_stage(run, name, work)

        run.do_stage = noted
        sys.addaudithook(watch)
        try:
            code = cli.main(job.arguments)
        finally:
            for late in (signal.SIGINT, signal.SIGTERM):
                signal.signal(late, signal.SIG_IGN)
            watch.moment = None  # what is written from here on is not the command's
            sys.stdout.flush()
        started, ended = watch.events[0][0], time.monotonic()
        events = [(at - started, stage) for at, stage in watch.events]
        write_json(notes / "events", {"events": events, "ended": ended - started})
        write_json(notes / "modules", list(sys.modules))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


@contextmanager
def hub_at(port: int) -> Iterator[None]:
    """An empty Hub in a process of its own."""
    child = os.fork()
    if not child:
        server = HubServer(port)
        server.serve_forever(0.05)
        os._exit(0)
    try:
        for _ in range(500):
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            time.sleep(0.01)
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def held_by_hub(port: int) -> dict[str, bytes]:
    """The hash of each file of the repository."""
    url = f"http://127.0.0.1:{port}/api/models/{REPOSITORY}/tree/main"
    with urllib.request.urlopen(urllib.request.Request(url, headers={"Authorization": f"Bearer {TOKEN}"})) as answer:
        return {f"hub/{entry['path']}": entry["oid"].encode() for entry in json.load(answer)}


def results_of(folder: Path) -> dict[str, bytes]:
    """Each file that has to be the same again: its text without times, or the hash of one that is no text."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = f"/{path.relative_to(folder)}"
        if not path.is_file() or FREE.search(name):
            continue
        if path.suffix not in (".json", ".jsonl", ".md", ".html", ".csv"):
            found[name] = hashlib.sha256(path.read_bytes()).digest()
            continue
        text = TIMES.sub("", path.read_text(encoding="utf-8"))
        if "/export/parity/" in name:  # llama.cpp answers two chats at a time
            text = "\n".join(sorted(text.split("\n")))
        found[name] = text.encode()
    return found


def is_close(one: bytes | None, other: bytes | None) -> bool:
    """Whether two texts differ in nothing but late digits of long numbers."""
    if one is None or other is None:
        return False
    texts = [content.decode("utf-8", "replace") for content in (one, other)]
    numbers = [list(map(float, LONG_NUMBER.findall(text))) for text in texts]
    return LONG_NUMBER.sub("#", texts[0]) == LONG_NUMBER.sub("#", texts[1]) and all(
        abs(a - b) < CLOSE for a, b in zip(*numbers, strict=True)
    )


def rows_of(folder: Path) -> dict[str, list[str]]:
    """The whole lines of each file of answers."""
    files = [*folder.rglob("completions.jsonl"), *folder.glob("found*.jsonl")]
    return {str(file.relative_to(folder)): file.read_text(encoding="utf-8").split("\n")[:-1] for file in files}


def key_of(row: str) -> tuple:
    fields = json.loads(row)
    return (fields["document"], fields["task"]) if "task" in fields else (fields["id"],)


def count_lost(kept: dict[str, list[str]], final: dict[str, list[str]], whole: dict[str, list[str]]) -> tuple[int, int]:
    """(answers that were kept or are due and are not there, answers that are there twice)."""
    lost = sum(row not in final.get(name, ()) for name, rows in kept.items() if name in whole for row in rows)
    lost += sum(key not in map(key_of, final.get(name, ())) for name, rows in whole.items() for key in map(key_of, rows))
    twice = sum(len(rows) - len(set(map(key_of, rows))) for rows in final.values())
    return lost, twice


@dataclass(frozen=True)
class Undisturbed:
    """What a job does where nothing disturbs it. `events`: (seconds since the first, stage)."""

    code: int
    results: dict[str, bytes]
    rows: dict[str, list[str]]
    events: list[tuple[float, str]]
    seconds: float

    def stages(self) -> list[str]:
        return list(dict.fromkeys(stage for _, stage in self.events))

    def choose(self, stage: str, kind: str, chance: random.Random) -> Moment:
        """A moment in `stage`: right before an event, or at any time."""
        own = [number for number, (_, of) in enumerate(self.events) if of == stage]
        if chance.random() < 0.5:
            return Moment(stage, chance.randrange(len(own)), 0.0, kind)
        last = own[-1] + 1
        end = self.events[last][0] if last < len(self.events) else self.seconds
        at = chance.uniform(self.events[own[0]][0], end)
        before = max(number for number in own if self.events[number][0] <= at)
        return Moment(stage, own.index(before), max(1e-4, at - self.events[before][0]), kind)


class Place:
    """Where commands run: a folder that is made anew for each trial, with what the job before it left."""

    def __init__(self, base: Path, port: int) -> None:
        self.base, self.folder, self.notes, self.port = base, base / "work", base / "notes", port

    def prepare(self, job: Job, stage: str = "") -> None:
        """As it is before the command, or where a run begins the stage."""
        shutil.rmtree(self.folder, ignore_errors=True)
        at_stage = self.base / "stages" / stage
        shutil.copytree(at_stage if stage and at_stage.is_dir() else self.base / (job.after or "start"), self.folder)

    def do(self, job: Job, moment: Moment | None = None, copies: Path | None = None) -> Ended:
        return do(job, self.folder, self.notes, moment, copies)

    def results(self, job: Job) -> dict[str, bytes]:
        return results_of(self.folder) | (held_by_hub(self.port) if job.name == "push" else {})


def begin(base: Path) -> Place:
    """A folder with what the first job reads; the environment that all commands share."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {
        "OMP_NUM_THREADS": "1", "HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(base / "home"), "TMPDIR": str(base),
    }  # fmt: skip
    write_jsonl(base / "start" / "corpus.jsonl", document_rows([with_gold(document) for document in invent(20)]))
    texts = [{"id": document.id, "text": document.text} for document in invent(7, seed=5)]
    write_jsonl(base / "start" / "texts.jsonl", texts)
    return Place(base, port)


def undisturbed(job: Job, place: Place) -> Undisturbed:
    """Once to import what it needs here, so that no trial has to; then, from the start, what the trials are held against."""
    for attempt in range(2):
        place.prepare(job)
        with hub_at(place.port):
            ended = place.do(job, copies=place.base / "stages" if not attempt else None)
            if ended.code not in (0, 1) or not (place.notes / "events").exists():
                raise SystemExit(f"{job.name}: ended with {ended.code} though nothing disturbed it:\n{ended.output}")
            results = place.results(job)
        if not attempt:
            for name in json.loads((place.notes / "modules").read_text(encoding="utf-8")):
                with suppress(Exception):  # what is made while a program runs cannot be imported
                    importlib.import_module(name)
    gc.collect()
    gc.freeze()  # else every child would look through all that was imported
    if job.after is None:
        shutil.copytree(place.folder, place.base / job.name)
    noted = json.loads((place.notes / "events").read_text(encoding="utf-8"))
    events = [(at, stage) for at, stage in noted["events"]]
    return Undisturbed(ended.code, results, rows_of(place.folder), events, noted["ended"])


@dataclass(frozen=True)
class Trial:
    """`struck`: (stage, kind) of each interruption; `faults`: what was not as it should be."""

    struck: tuple[tuple[str, str], ...]
    faults: tuple[str, ...]
    identical: bool
    close: bool
    smaller_batch: bool
    lost: int
    twice: int


def disturb(job: Job, whole: Undisturbed, moments: Sequence[Moment], place: Place) -> Trial:
    """Do the job with an interruption at each of `moments`, the last time without one."""
    place.prepare(job, moments[0].stage)
    struck, faults, kept, smaller_batch = [], [], {}, False
    with hub_at(place.port):
        for moment in moments:
            ended = place.do(job, moment)
            smaller_batch |= "training ran out of memory; it goes on" in ended.output
            if finished(job, ended, whole.code):  # before the moment, or without a need of more memory
                break
            struck.append((ended.struck or "?", moment.kind))
            faults += judge(ended, moment, whole.code)
            for name, rows in rows_of(place.folder).items():
                kept[name] = [*kept.get(name, ()), *rows]
        else:
            ended = place.do(job)
        if not finished(job, ended, whole.code):
            faults.append(f"went on and ended with {ended.code}: {last_line(ended.output)}")
            return Trial(tuple(struck), tuple(faults), False, False, smaller_batch, 0, 0)
        results, final = place.results(job), rows_of(place.folder)
    lost, twice = count_lost(kept, final, whole.rows)
    different = sorted(name for name in {*results, *whole.results} if results.get(name) != whole.results.get(name))
    wrong = [name for name in different if not is_close(results.get(name), whole.results.get(name))]
    if wrong and not smaller_batch:
        faults.append(f"differ: {', '.join(wrong[:6])}")
    close = bool(different) and not wrong
    return Trial(tuple(struck), tuple(faults), not different, close, smaller_batch and bool(wrong), lost, twice)


def disturb_all(
    places: Sequence[tuple[Job, str]], whole: dict[str, Undisturbed], place: Place, chance: random.Random
) -> Iterator[Trial]:
    """Trials without end, in each stage in turn and of each kind in turn; every fourth is interrupted again when it goes on."""
    for number in itertools.count():
        job, stage = places[number % len(places)]
        kinds = [kind_of(number, len(places)), *chance.choices(KINDS, k=number % 4 == 0)]
        moments = [whole[job.name].choose(stage, kind, chance) for kind in kinds]
        trial = disturb(job, whole[job.name], moments, place)
        for fault in trial.faults:
            print(f"FAULT  {job.name}: {moments}: {fault}", flush=True)
        print(".", end="", file=sys.stderr, flush=True)
        yield trial


def kind_of(number: int, places: int) -> str:
    """The kind of a trial's first interruption: another in each round over the places, and beside each other."""
    return KINDS[(number // places + number % places) % len(KINDS)]


def finished(job: Job, ended: Ended, code: int) -> bool:
    """Whether the command did all that it does undisturbed; one that fails says so in a line that begins with its name."""
    if f"medner {job.arguments[0]}: found." in ended.output and "exists already; nothing was written" in ended.output:
        return True  # it was struck when all was done
    return ended.code == code and f"medner {job.arguments[0]}: " not in ended.output


def judge(ended: Ended, moment: Moment, code: int) -> list[str]:
    """What an interrupted command should not have done."""
    if moment.kind == "SIGKILL":
        return [] if ended.code == -signal.SIGKILL else [f"SIGKILL ended it with {ended.code}"]
    if moment.kind == "memory":
        return []
    if ended.code in (1, code) and "Traceback" not in ended.output:
        return []
    return [f"{moment.kind} ended it with {ended.code}: {last_line(ended.output)}"]


def last_line(output: str) -> str:
    return next((line[:300] for line in reversed(output.splitlines()) if line.strip()), "")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--interruptions", type=int, default=200)
    parser.add_argument("--seed", type=int, default=14)
    parser.add_argument("--only", help="the job to disturb, such as extract")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has its background commands ignore it
    started, chance = time.monotonic(), random.Random(options.seed)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as base:
        place = begin(Path(base))
        jobs = [job for job in JOBS if options.only in (None, job.name) or job.name == "run"]
        whole = {job.name: undisturbed(job, place) for job in jobs}
        places = [(job, stage) for job in jobs for stage in whole[job.name].stages() if options.only in (None, job.name)]
        trials: list[Trial] = []
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with suppress(KeyboardInterrupt):  # what there is by then is counted
            for trial in disturb_all(places, whole, place, chance):
                trials.append(trial)
                keep(options, trials, time.monotonic() - started)
                if sum(len(one.struck) for one in trials) >= options.interruptions:
                    break
    result = keep(options, trials, time.monotonic() - started)
    print(render(result))
    return int(bool(result["n"] < options.interruptions or result["faults"] or result["rows_lost"] or result["rows_twice"]))


def keep(options: argparse.Namespace, trials: Sequence[Trial], seconds: float) -> dict:
    """Write what the trials came to. Returns it."""
    result = summarise(trials) | {
        "device": f"cpu ({platform.machine()}), {os.cpu_count()} cores, one thread",
        "versions": {name: importlib.import_module(name).__version__ for name in ("torch", "transformers", "trl")},
        "seed": options.seed,
        "seconds": round(seconds, 1),
    }
    write_json(options.out, result)
    return result


def summarise(trials: Sequence[Trial]) -> dict:
    """The counts by stage and kind; a trial that was interrupted twice counts in both places."""
    counts: dict[str, dict[str, Counter[str]]] = {}
    for trial in trials:
        for stage, kind in trial.struck:
            own = counts.setdefault(stage, {}).setdefault(kind, Counter())
            own += Counter({"interrupted": 1, "continued": not any(f.startswith("went on") for f in trial.faults)})
            own += Counter({"identical": trial.identical, "last_digits": trial.close, "smaller_batch": trial.smaller_batch})
            own += Counter({"rows_lost": trial.lost, "rows_twice": trial.twice})
    return {
        "n": sum(len(trial.struck) for trial in trials),
        "trials": sum(bool(trial.struck) for trial in trials),
        "identical": sum(trial.identical for trial in trials if trial.struck),
        "last_digits": sum(trial.close for trial in trials if trial.struck),
        "smaller_batch": sum(trial.smaller_batch for trial in trials if trial.struck),
        "rows_lost": sum(trial.lost for trial in trials),
        "rows_twice": sum(trial.twice for trial in trials),
        "faults": [fault for trial in trials for fault in trial.faults],
        "stages": {stage: {kind: dict(own) for kind, own in kinds.items()} for stage, kinds in counts.items()},
    }


def render(result: dict) -> str:
    columns = ("interrupted", "continued", "identical", "last_digits", "smaller_batch", "rows_lost", "rows_twice")
    rows = []
    for stage, kinds in result["stages"].items():
        for kind, own in kinds.items():
            rows.append((stage, kind, *(str(own.get(column, 0)) for column in columns)))
    header = ("stage", "kind", *(column.replace("_", " ") for column in columns))
    order = {name: number for number, name in enumerate([*(f"run: {stage}" for stage in STAGES), *(job.name for job in JOBS)])}
    rows.sort(key=lambda row: (order.get(row[0], 99), KINDS.index(row[1])))
    note = (
        f"{result['n']} interruptions in {result['trials']} trials. {result['identical']} ended byte for byte as the "
        f"undisturbed command, {result['last_digits']} but for late digits of log-probabilities and what is computed from "
        f"them, {result['smaller_batch']} after a smaller batch; {result['rows_lost']} answers lost, "
        f"{result['rows_twice']} twice; {result['seconds']} s"
    )
    return as_text(Table(header, tuple(rows), words=("kind",), note=note))


if __name__ == "__main__":
    sys.exit(main())
