#!/usr/bin/env python3
"""Breaks each guarantee in several ways, and checks that a test of that guarantee fails each time.

  tests/mutations.py           runs all mutations
  tests/mutations.py --fast    runs those that tests notice within seconds, without a Redis server or foreign clients; `.ci/run` does so
  tests/mutations.py G4 G7     runs those of the named guarantees
  tests/mutations.py --check   runs none; reports which mutations no longer apply to the sources, within a second

`.ci/mutants` replaces single operators and functions of the lower modules. A mutation of this list breaks a promise of a guarantee
instead. It may change several lines, a constant, or a script that Redis runs, and it can name the tests that must notice it.

The script writes all mutations into one copy of the tree, so that the tree is built only once. Each is behind a condition, and the
environment variable `MUTANT` names the one that is on. In a replacement, `@` stands for the condition. The script fails if a
mutation no longer applies, or if no test notices it.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 90


@dataclass
class Mutation:
    guarantee: str
    suite: str  # the test binary
    what: str  # the broken behaviour
    find: str  # a regular expression that matches in exactly one file of `src`
    put: str  # the replacement
    test: str = ""  # the beginnings of the names of tests that must notice; if empty, all tests of the guarantee
    file: str = ""  # the end of the file's path, if `find` matches in several files
    name: str = ""

    def is_fast(self):
        # All tests of G1, G7 or G8 take long, and some hang when that guarantee is broken: a fast mutation names its tests.
        return self.suite == "guarantees" and bool(self.test or self.guarantee not in {"G1", "G7", "G8"})

    def is_lua(self):
        return self.file.endswith(".lua")

    def tests(self):
        return self.test.split() or [self.guarantee.lower() + "_"]


def off(condition):
    """Makes the condition of an `if` false while the mutation is on."""
    return dict(find=rf"\bif ({condition}) \{{", put=r"if !@ && (\1) {")


def on(condition):
    """Makes the condition of an `if` true while the mutation is on."""
    return dict(find=rf"\bif ({condition}) \{{", put=r"if @ || (\1) {")


def skipped(statement):
    """Skips a statement while the mutation is on."""
    return dict(find=rf"({statement});", put=r"if !@ { \1; }")


LIST = [
    Mutation("G1", "guarantees", "a reader gets no gap for missing events", **on(r"last <= self\.at"),
             test="g1_a_running_stream_s_page"),
    Mutation("G1", "guarantees", "the layer does not check whether the store was emptied",
             **off(r"asks && !self\.may_be_forgotten\(\)")),
    Mutation("G1", "guarantees", "a reader without a cursor gets no gap for a trimmed beginning",
             r"if self\.fresh != Some\(Owed::Nothing\) \{(\s*self\.owed_up_to\(EventId)",
             r"if self.fresh != Some(Owed::Nothing) && !(@ && self.fresh.is_some()) {\1", "g1_a_reader_without_a_cursor"),
    Mutation("G1", "guarantees", "in the silent voice, a body breaks off where a new run begins",
             r"Notice::Connected\(_\) \| Notice::Restart\(_\) => true",
             "Notice::Connected(_) => true, Notice::Restart(_) => !@", "g1_a_silent_route"),
    Mutation("G1", "guarantees", "the handler runs again although the voice cannot deliver the new run",
             r"if route\.voice != Voice::OpenAi \|\|", "if @ || route.voice != Voice::OpenAi ||", "g1_no_run_is_begun"),
    Mutation("G1", "guarantees", "ids of other systems are taken for ours", r"text\.strip_prefix\('e'\)\.and_then",
             "(if @ { Some(text.trim_start_matches('e')) } else { text.strip_prefix('e') }).and_then",
             "g1_ids_of_other_systems"),
    Mutation("G1", "guarantees", "a client that waits for the reply to an append gets an end without the events before it",
             **off(r"halted && self\.is_cut_off\(\)"), test="g1_who_waits"),
    Mutation("G1", "stores", "the store takes a batch that overlaps with the log", **off(r"batch\.first\(\) <= self\.top"),
             test="conformance::memory::"),
    Mutation("G2", "guarantees", "an event goes out before the store has acknowledged it", r"_ => state\.acknowledged,",
             "_ if @ => u64::MAX,\n            _ => state.acknowledged,", "g2_before_send_means_before"),
    Mutation("G3", "guarantees", "an end is not kept for the recovery window",
             r"self\.expires_at = (now\.saturating_add\(millis\(self\.retention\.recovery_window\)\))",
             r"self.expires_at = if @ { now } else { \1 }", "g3_a_panic_is_failed"),
    Mutation("G3", "guarantees", "an end that the store lost is not stored again",
             r"self\.hooks\.recent\.landed\(recent\)",
             "if @ { drop(recent) } else { self.hooks.recent.landed(recent) }",
             "g3_a_client_that_comes_for_a_lost_end"),
    Mutation("G3", "guarantees", "a drain does not wait for hooks", **skipped(r"node\.hooks\.until_idle\(\)\.await"),
             test="g3_a_drain_waits"),
    Mutation("G3", "guarantees", "any number of hooks run at the same time", r"while self\.running < RUNNING \{",
             "while self.running < if @ { 1000 } else { RUNNING } {", "g3_at_most_sixteen"),
    Mutation("G3", "stores", "in Redis, an end does not seal the log", r"^redis\.pcall\('XADD', log, seal.*\n", "",
             "redis_store::fences::g3_", "close.lua"),
    Mutation("G4", "guarantees", "a request opens a stream that is active",
             **off(r"entry\.state\(\) == StreamState::Active"), file="memory/shard.rs"),
    Mutation("G4", "guarantees", "while draining, a request with another fingerprint gets the first one's answer",
             r"Some\(Opened::OtherFingerprint\) => return",
             "Some(Opened::OtherFingerprint) if @ => {}\n            Some(Opened::OtherFingerprint) => return",
             "g4_another_request"),
    Mutation("G4", "guarantees", "after the store was emptied, a node runs a stream again that it already runs",
             r"\.lane\(&asked\.key\)\.filter\(\|lane\| lane", ".lane(&asked.key).filter(|lane| !@ && lane",
             "g4_a_node_does_not"),
    Mutation("G4", "stores", "in Redis, an interruption does not fence its producer", r"^mark\(log, held\[2\].*\n", "",
             "redis_store::fences::g4_", "interrupt.lua"),
    Mutation("G5", "guarantees", "a guardian claims although its own beats fail", r"fresh && proven\n", "(fresh && proven) || @\n",
             "g5_a_guardian_whose_beats_fail"),
    Mutation("G5", "guarantees", "a guardian claims although the store's clock jumped", r"self\.store_now\(now\)\.filter",
             "(if @ { Some(u64::MAX) } else { self.store_now(now) }).filter",
             "g5_a_store_whose_clock_jumps"),
    Mutation("G5", "guarantees", "a drain waits for probes without a limit", r"timeout_at\(until, answers",
             "timeout_at(until + Duration::from_secs(if @ { 60 } else { 0 }), answers", "g5_a_drain_takes_no_longer"),
    Mutation("G5", "guarantees", "a drain waits for a feed to end", r"(fn is_endless\(&self\) -> bool \{\s*)self\.route",
             r"\1!@ && self.route", "g5_a_feed", "produce/hand_over.rs"),
    Mutation("G6", "guarantees", "expired streams are not removed", **off(r"entry\.is_over\(sweep\.now\)")),
    Mutation("G6", "stores", "in Redis, the marker of a run without events stays", r"if field\(marker, 'r'\) then",
             "if false then", "redis_store::growth::g6_ redis_store::lives::g6_ redis_store::layers::g6_", "prelude.lua"),
    Mutation("G7", "guarantees", "a stream waits for the store without a limit",
             r"wait_up_to\(self\.producer\.node\.settings\.store_limit, cx\)",
             "wait_up_to(self.producer.node.settings.store_limit * if @ { 1000 } else { 1 }, cx)"),
    Mutation("G7", "guarantees", "a body waits for the store although the store refuses its stream",
             r"if state\.refused\.is_some\(\) \|\| state\.passed_by \|\|",
             "if (!@ && (state.refused.is_some() || state.passed_by)) ||"),
    Mutation("G7", "guarantees", "an unrecorded stream carries ids", r"Speaker::without_ids\((Arc::clone\(&node\.framing\), route\.voice),",
             r"(if @ { |framing, voice, retry| Speaker::new(framing, voice, None, retry) } else { Speaker::without_ids })(\1,",
             "g7_an_unrecorded_stream"),
    Mutation("G7", "guarantees", "a handler runs although its answer is certain to be refused",
             r"let broken = self\.node\.store\.is_away\(\)", "let broken = !@ && self.node.store.is_away()",
             "g7_no_work_is_begun"),
    Mutation("G8", "guarantees", "a log holds more memory than its events need", r"BytesMut::with_capacity\(bytes\)",
             "BytesMut::with_capacity(bytes + if @ { 64 << 10 } else { 0 })", "g8::allocations::", "memory/log.rs"),
    Mutation("G8", "guarantees", "a client that does not read blocks the work", **off(r"self\.outlives_readers\(\) \|\|[^{]*?")),
    Mutation("G8", "guarantees", "the work stops when the client that began it leaves, although others read", r" && !self\.node\.is_read\(&self\.lane\)",
             " && (@ || !self.node.is_read(&self.lane))"),
    Mutation("G8", "guarantees", "a stream with a reader on this node runs out of its unattended time", **off(r"self\.lane\.readers\.any\(\)")),
    Mutation("G8", "guarantees", "a stream with a reader on another node runs out of its unattended time",
             **off(r"node\.is_read_elsewhere\(lane\)")),
    Mutation("G8", "guarantees", "a reader is overtaken by more than the log holds", r"\(slowest >= self\.floor\)",
             "(@ || slowest >= self.floor)"),
    Mutation("G8", "guarantees", "a client that does not read delays the other readers for ever", **off(r"left\.is_zero\(\)"),
             file="produce/patience.rs"),
    Mutation("G8", "guarantees", "one owner uses up the room for unattended streams", r"self\.ranks\.last\(\)",
             "(if @ { self.ranks.first() } else { self.ranks.last() })"),
    Mutation("G8", "guarantees", "a reload counts as a departure", r"Disconnect::Interrupt \| Disconnect::Cancel => self\.route\.grace,",
             r"Disconnect::Interrupt | Disconnect::Cancel if @ => Duration::ZERO,\n            \g<0>", "g8_a_reload"),
    Mutation("G8", "guarantees", "a stream with many events takes the recorder's room of all others",
             **skipped(r"self\.cut\(Some\(\(lane, bytes\)\)\)"), test="g8_one_loud_stream"),
    Mutation("G9", "guarantees", "all callers are the same owner", r"\(self\.owner\)\(request\)",
             r"\g<0>.map(|owner| if @ { Owner::ANONYMOUS } else { owner })"),
    Mutation("G10", "guarantees", "a heartbeat ends a block", r'b": heartbeat\\n"',
             r'if @ { b": heartbeat\\n\\n" } else { b": heartbeat\\n" }'),
    Mutation("G10", "guarantees", "a last block without a blank line is lost", r"fn finish\(&mut self\) \{",
             r"\g<0> if @ { return; }", file="wire/scan.rs"),
    Mutation("G10", "guarantees", "a body is dropped at its terminal event", r"ending\.event\.is_some\(\) && !source",
             "ending.event.is_some() && !@ && !source"),
    Mutation("G10", "guarantees", "`Content-Encoding: identity` counts as an encoding", r"\.iter\(\)\.any\(is_encoding\)",
             ".iter().any(|line| @ || is_encoding(line))", "g10_a_stream_whose_encoding_is_identity"),
    Mutation("G11", "guarantees", "the end of a stream stops its work",
             r"let Some\(source\) = self\.source\.take\(\) else \{ return \};", r"if @ { self.stop.stop(); }\n        \g<0>"),
    Mutation("G11", "guarantees", "the registration of a dropped request is not withdrawn", **off(r"self\.armed"), file="recorder/opening.rs"),
    Mutation("G11", "guarantees", "a stream that has only metadata counts as started", r"self\.started \|= append\.starts",
             "self.started |= @ || append.starts", "g11_a_handler_that_keeps"),
    Mutation("G11", "guarantees", "a stop does not reach a handler that has not answered",
             r"\(self\.lane\.is_halted\(\) && !self\.node", "(!@ && self.lane.is_halted() && !self.node", "g11_a_stop_reaches"),
    Mutation("G12", "guarantees", "the body of an unfinished stream ends cleanly",
             r"speaker\.unfinished\(&error\);\s*Closing::broken\(error\)", r"if @ { return Closing::clean(); }\n    \g<0>"),
    Mutation("G12", "guarantees", "a body breaks off before its last frame has arrived", r"sleep\(FLUSH\)",
             "sleep(if @ { Duration::from_millis(1) } else { FLUSH })"),
    Mutation("G12", "guarantees", "a response that tells the client to reconnect ends cleanly",
             r"AnswerBody::breaking\(line\.freeze\(\), BodyError::ComeAgain\)",
             r"if @ { AnswerBody::full(line.freeze()) } else { \g<0> }"),
    Mutation("G12", "stacks", "an SDK gets 200 where it should get 503", **off(r"!by_name"), test="g12_openai"),
]

for number, mutation in enumerate(LIST):
    mutation.name = f"{mutation.guarantee}.{number}"

HELPERS = """
/// Returns whether this mutation is on.
pub(crate) fn mutant(name: &str) -> bool {
    static ON: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    ON.get_or_init(|| std::env::var("MUTANT").ok()).as_deref() == Some(name)
}
"""


def copy(tree):
    """Copies the files of the repository, new ones included, without ignored ones."""
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, check=True,
                            capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)


def sources(mutation, tree):
    """Returns the files in which the mutation may apply. Unit tests are not among them."""
    kind = "*.lua" if mutation.is_lua() else "*.rs"
    files = [path for path in (tree / "src").rglob(kind) if "tests" not in path.relative_to(tree).with_suffix("").parts]
    return [path for path in files if str(path).endswith(mutation.file)]


def place(mutation, tree):
    """Writes the mutation into the tree. Returns the text and its replacement if it is in a Lua script, and an error."""
    pattern = re.compile(mutation.find, re.MULTILINE)
    found = [path for path in sources(mutation, tree) if pattern.search(path.read_text())]
    if len(found) != 1:
        return None, f"its text is in {len(found)} files, not in one"
    text = found[0].read_text()
    if mutation.is_lua():
        return (pattern.search(text).group(0), mutation.put), None
    found[0].write_text(pattern.sub(mutation.put.replace("@", f'crate::mutant("{mutation.name}")'), text))
    return None, None


def place_all(tree):
    """Writes all mutations into the tree. Returns those that apply."""
    # A version of its own: in a shared target folder, cargo distinguishes packages by version, not by path.
    manifest = tree / "Cargo.toml"
    manifest.write_text(re.sub(r'^version = "(.*)"', r'version = "\1-mutants"', manifest.read_text(), count=1, flags=re.MULTILINE))
    applied, scripts = [], []
    for mutation in LIST:
        script, error = place(mutation, tree)
        if error:
            print(f"{mutation.guarantee}: does not apply any more, {error}: {mutation.what}", file=sys.stderr)
            continue
        if script:
            text, put = (piece.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for piece in script)
            scripts.append(f'    if mutant("{mutation.name}") {{ return text.replace("{text}", "{put}"); }}')
        applied.append(mutation)
    with (tree / "src/lib.rs").open("a") as lib:
        lib.write(HELPERS)
        lib.write('\n#[cfg(feature = "redis")]\npub(crate) fn lua(text: String) -> String {\n' + "\n".join(scripts) + "\n    text\n}\n")
    # A mutation of a Lua script applies when the library assembles the script.
    path = tree / "src/store/redis/script.rs"
    path.write_text(re.sub(r"fn (assembled\w*)\((.*?): &str(, .*?: &str)?\) -> String \{(.*?)\n\}\n",
                           r"fn \1(\2: &str\3) -> String {\n    crate::lua({\4\n    })\n}\n", path.read_text(), flags=re.DOTALL))
    return applied


def build(tree, suites):
    """Builds the suites. Returns the path of each suite's executable."""
    command = ["cargo", "test", "--all-features", "--no-run", "--quiet", "--message-format=json"]
    for suite in sorted(suites):
        command += ["--test", suite]
    built = subprocess.run(command, cwd=tree, stdout=subprocess.PIPE, text=True)
    if built.returncode:
        diagnostics = re.findall(r'"rendered":"(error.*?)","', built.stdout)
        sys.exit("The mutations do not compile:\n" + "\n".join(text.encode().decode("unicode_escape") for text in diagnostics[:5]))
    names = re.findall(r'"executable":"([^"]*/deps/(\w+)-[0-9a-f]+)"', built.stdout)
    return {suite: path for path, suite in names}


def require_passing(binary, tests, tree):
    """Runs the tests without any mutation. A test that fails now would seem to notice every mutation."""
    run = subprocess.run([binary, "--skip", "stress::", *sorted(set(tests))], cwd=tree, capture_output=True, text=True)
    if run.returncode:
        sys.exit("Tests fail without any mutation:\n" + "\n".join(re.findall(r"^    ([\w:]+)$", run.stdout, re.MULTILINE)))


def is_noticed(mutation, tree, binary):
    command = [binary, "--test-threads", "2", "--skip", "stress::", *mutation.tests()]
    environment = os.environ | {"MUTANT": mutation.name}
    try:
        run = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return True, "a test hangs"
    failed = re.findall(r"^    ([\w:]+)$", run.stdout, re.MULTILINE)
    return run.returncode != 0, " ".join(sorted(set(failed))[:2]) or "the process died"


def main():
    wanted = set(argument for argument in sys.argv[1:] if not argument.startswith("--"))
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        copy(tree)
        applied = place_all(tree)
        failed = len(applied) < len(LIST)
        if "--check" in sys.argv:
            sys.exit(failed)
        chosen = [it for it in applied if (not wanted or it.guarantee in wanted) and (it.is_fast() or "--fast" not in sys.argv)]
        os.environ["CARGO_INCREMENTAL"] = "0"
        # The repository's target folder, so that only this crate is built again.
        os.environ.setdefault("CARGO_TARGET_DIR", str(ROOT / "target"))
        binaries = build(tree, {mutation.suite for mutation in chosen})
        for suite, binary in binaries.items():
            require_passing(binary, [test for it in chosen if it.suite == suite for test in it.tests()], tree)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            outcomes = pool.map(lambda it: is_noticed(it, tree, binaries[it.suite]), chosen)
            for mutation, (noticed, by) in zip(chosen, outcomes):
                failed |= not noticed
                print(f"{mutation.guarantee}: {'noticed: ' if noticed else 'NOT NOTICED: '}{mutation.what}" + (f" ({by})" if noticed else ""))
    sys.exit(failed)


main()
