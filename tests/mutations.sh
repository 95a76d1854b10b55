#!/usr/bin/env bash
# Breaks each guarantee once, in a copy of the tree, and expects the tests that carry its name to fail.
#
#   tests/mutations.sh          all
#   tests/mutations.sh --first  the first one of each guarantee, as CI does
#   tests/mutations.sh G4 G7    those of some guarantees
#   tests/mutations.sh --check  none: it only says which no longer apply, and takes a second
#
# A mutation that no longer applies, or that no test notices, fails the script. Whichever are asked for, each is looked at
# whether its text still occurs in the sources.
set -uo pipefail
cd "$(dirname "$0")/.."
root=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export CARGO_INCREMENTAL=0
# The tree's own, so that only this crate is built again.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$root/target}"

first=
check=
case ${1:-} in
  --first)
    first=yes
    shift
    ;;
  --check)
    check=yes
    shift
    ;;
esac
wanted=" $* "
failed=0
declare -A begun

# mutate <guarantee> <test binary> <file> <what it does> <perl expression> [<test>]
#
# Without <test> all tests of the binary run whose names begin with the guarantee's.
mutate() {
  local guarantee=$1 binary=$2 file=$3 what=$4 change=$5 named=${6:-}
  if [[ ! -f $root/$file ]] || ! perl -0pe "$change" "$root/$file" >"$work/mutated" || cmp -s "$work/mutated" "$root/$file"; then
    echo "$guarantee: the mutation does not apply to $file any more: $what" >&2
    failed=1
    return
  fi
  [[ -z $check ]] || return 0
  [[ $wanted == "  " || $wanted == *" $guarantee "* ]] || return 0
  [[ -z $first || -z ${begun[$guarantee]:-} ]] || return 0
  begun[$guarantee]=yes
  local tree=$work/tree
  mkdir -p "$tree"
  (cd "$root" && git ls-files -z --cached --others --exclude-standard) |
    rsync_files "$tree"
  perl -0pi -e "$change" "$tree/$file"
  local log=$work/log prefix
  prefix=$(tr '[:upper:]' '[:lower:]' <<<"$guarantee")_
  if ! (cd "$tree" && cargo test --quiet --all-features --test "$binary" --no-run) >"$log" 2>&1; then
    echo "$guarantee: the mutation does not compile: $what" >&2
    tail -n 20 "$log" >&2
    failed=1
    return
  fi
  local outcome=0
  (cd "$tree" && timeout 300 cargo test --quiet --all-features --test "$binary" "${named:-$prefix}") >"$log" 2>&1 || outcome=$?
  case $outcome in
    0)
      echo "$guarantee: no test of $binary notices: $what" >&2
      failed=1
      ;;
    124) echo "$guarantee: noticed, by a test that hangs: $what" ;;
    *) echo "$guarantee: noticed: $what ($(grep -c 'FAILED\|panicked' "$log") signs)" ;;
  esac
}

# Copies the listed files, and only those that differ, so that the build sees what changed.
rsync_files() {
  local tree=$1 name
  while IFS= read -r -d '' name; do
    if [ -L "$root/$name" ]; then
      mkdir -p "$tree/$(dirname "$name")"
      ln -sfn "$(readlink "$root/$name")" "$tree/$name"
      continue
    fi
    [ -f "$root/$name" ] || continue
    if ! cmp -s "$root/$name" "$tree/$name"; then
      mkdir -p "$tree/$(dirname "$name")"
      cp "$root/$name" "$tree/$name"
    fi
  done
}

mutate G1 guarantees src/protocol/replay/mod.rs "a reader is not told of what is missing" \
  's/if last <= self\.at \{/if true {/'
mutate G1 guarantees src/hub/forgotten.rs "nobody asks whether the store was emptied" \
  's/if asks && !self\.may_be_forgotten\(\) \{/if false {/'
mutate G2 recorder_faults src/recorder/lane.rs "an event goes out before the store has acknowledged it" \
  's/_ => state\.acknowledged,/_ => u64::MAX,/'
mutate G3 guarantees src/store/memory/entry/mod.rs "an end is not kept" \
  's/self\.expires_at = now\.saturating_add\(millis\(self\.retention\.recovery_window\)\)/self.expires_at = now/'
mutate G3 guarantees src/recorder/mod.rs "an end that the store lost is not said again" \
  's/self\.hooks\.recent\.landed\(recent\)/drop(recent)/g'
mutate G4 guarantees src/store/memory/shard.rs "a stream that runs is opened again" \
  's/if entry\.state\(\) == StreamState::Active \{\s*return Opened::Active/if entry.epoch() == 0 { return Opened::Active/'
mutate G4 redis_store src/store/redis/scripts/interrupt.lua "in Redis, an interruption does not fence its producer" \
  's/^mark\(log, held\[2\].*?\n//m'
mutate G3 redis_store src/store/redis/scripts/close.lua "in Redis, an end does not seal the log" \
  's/^redis\.pcall\(.XADD., log, seal.*?\n//m'
mutate G5 guarantees src/protocol/trust.rs "a guardian claims whatever its own beats say" \
  's/fresh && proven/fresh || proven || true/'
mutate G5 guarantees src/protocol/trust.rs "a guardian believes whatever the store's clock says" \
  's/self\.store_now\(now\)\.filter/Some(u64::MAX).filter/'
mutate G6 bounds src/store/memory/shard.rs "what has expired is not removed" \
  's/if entry\.is_over\(look\.now\) \{/if false {/'
mutate G6 redis_store src/store/redis/scripts/prelude.lua "in Redis, a run that made nothing leaves its marker" \
  's/if field\(marker, .r.\) then/if false then/'
mutate G8 allocations src/store/memory/log.rs "a log holds on to more memory than its events have" \
  's/BytesMut::with_capacity\(bytes\)/BytesMut::with_capacity(bytes + (64 << 10))/'
mutate G7 recorder_faults src/layer/live.rs "a stream waits for the store for as long as that takes" \
  's/self\.producer\.core\.settings\.store_limit, cx/self.producer.core.settings.store_limit * 1000, cx/'
mutate G7 recorder_faults src/recorder/lane.rs "a stream that the store refuses is waited for" \
  's/if state\.refused\.is_some\(\) \|\|/if false \&\&/'
mutate G8 bounds src/layer/producer.rs "a client that does not read holds the work up" \
  's/if self\.outlives_readers\(\) \|\|.*?\{/if false {/'
mutate G8 bounds src/layer/producer.rs "the client that began the work takes it along" \
  's/ && !self\.core\.is_read\(&self\.lane\)//'
mutate G8 bounds src/layer/absence.rs "a stream that is read here runs out of its time" \
  's/if self\.lane\.readers\.any\(\) \{/if false {/'
mutate G8 bounds src/layer/absence.rs "a stream that is read on another node runs out of its time" \
  's/let next = if core\.is_read_elsewhere\(lane\) \{/let next = if false {/'
mutate G8 bounds src/recorder/readers.rs "a reader is overtaken by more than the log holds" \
  's/\(slowest >= self\.floor\)/true/'
mutate G8 bounds src/layer/patience.rs "a reader that sleeps holds the others up for ever" \
  's/if left\.is_zero\(\) \{/if false {/'
mutate G8 bounds src/layer/unattended.rs "one owner uses up what may run unread" \
  's/self\.ranks\.last\(\)/self.ranks.first()/'
mutate G9 bounds src/hub/owner.rs "everybody is the same owner" \
  's/\(self\.owner\)\(request\)/(self.owner)(request).map(|_| Owner::ANONYMOUS)/'
mutate G10 bounds src/wire/sse.rs "a heartbeat ends a block" \
  's/": heartbeat\\n"/": heartbeat\\n\\n"/'
mutate G10 bounds src/wire/scan.rs "a last block without a blank line is lost" \
  's/fn finish\(&mut self\) \{/fn finish(&mut self) {\n        return;/'
mutate G10 bounds src/layer/engine.rs "a body is dropped at its terminal event" \
  's/ending\.event\.is_some\(\) && !source/false \&\& !source/'
mutate G11 bounds src/layer/engine.rs "the end of a stream stops its work" \
  's/let Some\(source\) = self\.source\.take\(\) else \{ return \};/self.stop.stop();\n        let Some(source) = self.source.take() else { return };/'
mutate G11 bounds src/recorder/opening.rs "a registration is not withdrawn" \
  's/if self\.armed \{/if false {/'
mutate G12 endings src/follow/ending.rs "an unfinished stream looks finished" \
  's/speaker\.unfinished\(&error\);\s*Closing::broken\(error\)/Closing::clean()/'
mutate G12 endings src/follow/ending.rs "a body breaks before what it said has arrived" \
  's/const FLUSH: Duration = Duration::from_millis\(100\)/const FLUSH: Duration = Duration::from_millis(1)/'
mutate G12 endings src/follow/ending.rs "a client that comes again is given an end" \
  's/AnswerBody::breaking\(line\.freeze\(\), BodyError::ComeAgain\)/AnswerBody::full(line.freeze())/'

# What a review found broken once: each is noticed by the test that came of it.
mutate G1 guarantees src/protocol/replay/mod.rs "a reader without a cursor is told nothing of a trimmed beginning" \
  's/if self\.fresh != Some\(Owed::Nothing\) \{\s*self\.owed_up_to\(EventId/if self.fresh.is_none() {\n            self.owed_up_to(EventId/' \
  g1_a_reader_without_a_cursor
mutate G1 guarantees src/layer/voice.rs "a silent body ends where a new run begins" \
  's/Notice::Connected\(_\) \| Notice::Restart\(_\) => true/Notice::Connected(_) => true, Notice::Restart(_) => false/' \
  g1_a_silent_route
mutate G1 guarantees src/layer/admit.rs "a run is begun for a body that can only say that it is one" \
  's/route\.voice != Voice::OpenAi \|\|/true ||/' g1_no_run_is_begun
mutate G1 bounds src/id.rs "ids of other systems are taken for ours" \
  's/text\.strip_prefix\(.e.\)\.and_then/Some(text.trim_start_matches("e")).and_then/' g1_ids_of_other_systems
mutate G3 bounds src/guardian/drain.rs "a drain does not wait for hooks" \
  's/core\.hooks\.until_idle\(\)\.await;//' g3_a_drain_waits
mutate G3 guarantees src/hooks/queue.rs "any number of hooks run at a time" \
  's/const RUNNING: usize = 16/const RUNNING: usize = 1000/' g3_at_most_sixteen
mutate G4 guarantees src/layer/admit.rs "while draining, another request gets the first one's answer" \
  's/Some\(Opened::OtherFingerprint\) => return Self::Reject\(Rejection::OtherRequest\),\s*Some\(_\)/Some(Opened::OtherFingerprint) => {}\n            Some(_)/' \
  g4_another_request
mutate G4 guarantees src/layer/admit.rs "a node runs twice what it runs, where the store was emptied" \
  's/core\.recorder\.lane\(&asked\.key\)\.filter\(\|lane\|/core.recorder.lane(\&asked.key).filter(|lane| false \&\&/' g4_a_node_does_not
mutate G5 bounds src/guardian/drain.rs "a drain waits for probes for as long as they take" \
  's/timeout_at\(until, answers/timeout_at(until + Duration::from_secs(60), answers/' g5_a_drain_takes_no_longer
mutate G5 bounds src/layer/producer.rs "a feed holds its process" \
  's/self\.route\.endless/false/' g5_a_feed
mutate G7 bounds src/layer/answer.rs "what is not recorded carries ids" \
  's/Speaker::without_ids\(Arc::clone\(&core\.framing\), route\.voice,/Speaker::new(Arc::clone(\&core.framing), route.voice, None,/' \
  g7_an_unrecorded_stream
mutate G7 recorder_faults src/layer/service.rs "work is begun whose answer is certain to be refused" \
  's/let broken = self\.core\.store\.is_away\(\);/let broken = false;/' g7_no_work_is_begun
mutate G1 recorder_faults src/layer/live.rs "who waits for a lost reply is told an end behind events that it was not given" \
  's/if halted && self\.is_cut_off\(\) \{/if false {/' g1_who_waits
mutate G1 conformance src/store/memory/log.rs "a batch that overlaps with what is held is taken" \
  's/if batch\.first\(\) <= self\.top \{/if false {/' overlap
mutate G8 bounds src/layer/producer.rs "a reload is a departure" \
  's/Disconnect::Interrupt \| Disconnect::Cancel => self\.route\.grace/Disconnect::Interrupt | Disconnect::Cancel => Duration::ZERO/' \
  g8_a_reload
mutate G8 recorder_faults src/recorder/room.rs "one loud stream takes the room of all others" \
  's/self\.cut\(Some\(\(lane, bytes\)\)\);//' g8_one_loud_stream
mutate G10 bounds src/layer/answer.rs "any Content-Encoding is an encoding" \
  's/\.iter\(\)\.any\(is_encoding\)/.iter().next().is_some()/' g10_a_stream_whose_encoding_is_identity
mutate G11 bounds src/store/memory/entry/mod.rs "a stream that only kept metadata has started" \
  's/self\.started \|= append\.starts;/self.started = true;/' g11_a_handler_that_keeps
mutate G11 guarantees src/layer/handler.rs "a stop does not reach a handler that has not answered" \
  's/self\.lane\.is_halted\(\) && !self\.core/false \&\& !self.core/' g11_a_stop_reaches
mutate G12 clients src/follow/ending.rs "an SDK that cannot be served is answered 200" \
  's/if !by_name \{/if false {/' g12_openai

exit $failed
