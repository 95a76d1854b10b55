//! What a log holds, merges and trims.

use super::*;

fn ids(log: &Log, after: EventId) -> Vec<String> {
    let name = |record: &Record| match record.first() {
        first if first == record.id => format!("{}-{}", record.id.epoch, record.id.seq),
        first => format!("{}-{}..{}", record.id.epoch, first.seq, record.id.seq),
    };
    log.after(after).map(name).collect()
}

fn keeps(max_events: usize) -> Retention {
    let long = std::time::Duration::from_secs(600);
    Retention { stale: long, lifetime: long, recovery_window: long, max_events, max_bytes: 1 << 30 }
}

/// Events of 9 bytes each, up to the ninth.
fn put(log: &mut Log, first: u64, last: u64, at: u64) -> Put {
    let count = last + 1 - first;
    let event = |seq| format!("id:e5-{seq}\n\n");
    let frame = Frame { count, bytes: Bytes::from((first..=last).map(event).collect::<String>()) };
    log.put(EventId::new(5, last), frame, at, &keeps(1 << 20))
}

fn log() -> Log {
    let mut log = Log::default();
    log.push_run(5, 5, None, 0);
    log
}

#[test]
fn trimming_drops_the_oldest_and_remembers_it() {
    let mut log = log();
    for seq in 1..=4 {
        assert_eq!(put(&mut log, seq, seq, seq * 1000), Put::Held);
    }
    assert_eq!(ids(&log, EventId::new(5, 2)), ["5-3", "5-4"]);
    assert!(log.knows(5) && !log.knows(4) && !log.knows(6));
    log.trim(4, usize::MAX);
    assert_eq!(ids(&log, EventId::default()), ["5-1", "5-2", "5-3", "5-4"]);
    log.trim(3, usize::MAX);
    assert_eq!(ids(&log, EventId::default()), ["5-2", "5-3", "5-4"]);
    assert!(log.knows(5) && log.knows(4));
    log.trim(usize::MAX, 18);
    assert_eq!(ids(&log, EventId::default()), ["5-3", "5-4"]);
    log.trim(2, 18);
    assert_eq!((log.top(), log.count, log.bytes), (EventId::new(5, 4), 2, 18), "it is within both limits");
    log.trim(0, 0);
    assert_eq!(ids(&log, EventId::default()), ["5-4"], "the newest stays");
}

#[test]
fn a_batch_is_taken_whole_or_not_at_all() {
    let mut log = log();
    put(&mut log, 1, 3, 0);
    put(&mut log, 6, 9, 0);
    assert_eq!(ids(&log, EventId::new(5, 0)), ["5-1..3", "5-6..9"]);
    for (first, last) in [(1, 3), (2, 2), (6, 9), (7, 8)] {
        assert_eq!(put(&mut log, first, last, 0), Put::Held, "{first}..{last} is held");
    }
    for (first, last) in [(3, 4), (4, 5), (5, 6), (9, 10), (1, 20)] {
        assert_eq!(put(&mut log, first, last, 0), Put::Taken, "{first}..{last} is not");
    }
    assert_eq!(ids(&log, EventId::new(5, 0)), ["5-1..3", "5-6..9"]);
    log.trim(5, usize::MAX);
    assert_eq!(ids(&log, EventId::default()), ["5-3", "5-6..9"], "a part of a batch can be trimmed");
    assert_eq!((log.count, log.bytes), (5, 45));
    assert_eq!((put(&mut log, 1, 3, 0), put(&mut log, 2, 7, 0)), (Put::Held, Put::Taken), "what is trimmed was held");
}

#[test]
fn small_entries_are_put_together() {
    let mut log = log();
    for seq in 1..=10_000 {
        put(&mut log, seq, seq, 0);
    }
    let (held, bytes) = (log.records.len(), log.bytes);
    assert!(bytes > 100_000 && held < 25, "{held} entries for {bytes} bytes");
    let mut next = 1;
    for record in log.after(EventId::new(5, 0)) {
        let RecordKind::Events(events) = &record.kind else { panic!("no event: {record:?}") };
        assert_eq!((record.first().seq, crate::wire::frame::events(&Sse, events).count() as u64), (next, events.count));
        next = record.id.seq + 1;
    }
    assert_eq!(next, 10_001);
}

#[test]
fn entries_that_do_not_belong_together_stay_apart() {
    let mut log = log();
    put(&mut log, 1, 1, 0);
    put(&mut log, 3, 3, 0);
    assert_eq!(ids(&log, EventId::new(5, 0)), ["5-1", "5-3"], "a hole");
    put(&mut log, 4, 4, 101);
    assert_eq!(ids(&log, EventId::new(5, 1)), ["5-3", "5-4"], "another time");
    put(&mut log, 5, 5, 102);
    assert_eq!(ids(&log, EventId::new(5, 3)), ["5-4..5"]);
    let one = Frame { count: 1, bytes: Bytes::from_static(b"x") };
    log.put(EventId::new(5, 6), one.clone(), 102, &keeps(31));
    log.push_run(9, 9, Some(EventId::new(5, 6)), 102);
    log.put(EventId::new(9, 1), one, 102, &keeps(1 << 20));
    assert_eq!(ids(&log, EventId::new(5, 6)), ["9-0", "9-1"], "another run");
}

#[test]
fn an_entry_is_at_most_a_sixteenth_of_the_log() {
    let few_bytes = Retention { max_bytes: 16 * 18, ..keeps(1 << 20) };
    for retention in [keeps(16 * 2), few_bytes] {
        let mut log = log();
        for seq in 1..=3 {
            let event = Frame { count: 1, bytes: Bytes::from(format!("id:e5-{seq}\n\n")) };
            log.put(EventId::new(5, seq), event, 0, &retention);
        }
        assert_eq!(ids(&log, EventId::new(5, 0)), ["5-1..2", "5-3"], "{retention:?}");
    }
}

#[test]
fn an_entry_is_merged_with_one_of_similar_size_and_time() {
    let merged = |first: u64, at: u64| {
        let mut log = log();
        put(&mut log, 1, first, 0);
        put(&mut log, first + 1, first + 1, at);
        ids(&log, EventId::new(5, 0))
    };
    assert_eq!(merged(2, 0), ["5-1..3"], "twice the size");
    assert_eq!(merged(3, 0), ["5-1..3", "5-4"], "thrice the size");
    assert_eq!(merged(1, 100), ["5-1..2"]);
    assert_eq!(merged(1, 101), ["5-1", "5-2"]);
}

/// The events of another wire format are not found in their entry, so it is trimmed whole.
#[test]
fn an_entry_that_cannot_be_separated_is_trimmed_whole() {
    let mut log = log();
    log.put(EventId::new(5, 3), Frame { count: 3, bytes: Bytes::from_static(b"abc") }, 0, &keeps(1 << 20));
    put(&mut log, 5, 5, 0);
    log.trim(3, usize::MAX);
    assert_eq!(ids(&log, EventId::default()), ["5-5"]);
    assert_eq!((log.count, log.bytes), (1, 9));
}

#[test]
fn what_the_store_acknowledged_and_forgot_counts_as_held() {
    let mut log = Log::resumed_after(EventId::new(5, 3));
    assert!(log.knows(5) && log.knows(4) && !log.knows(6));
    log.push_run(5, 5, None, 0);
    assert_eq!((put(&mut log, 1, 3, 0), put(&mut log, 4, 6, 0)), (Put::Held, Put::Held));
    log.trim(3, usize::MAX);
    assert_eq!(ids(&log, EventId::default()), ["5-4..6"], "the marker is trimmed");
    assert_eq!(put(&mut log, 1, 3, 0), Put::Held);

    let mut log = self::log();
    log.lose_up_to(EventId::new(5, 3));
    assert_eq!(log.top(), EventId::new(5, 3));
    assert_eq!((put(&mut log, 2, 3, 0), put(&mut log, 4, 4, 0)), (Put::Held, Put::Held));
    assert_eq!(ids(&log, EventId::default()), ["5-0", "5-4"]);
}

#[test]
fn runs_that_make_nothing_leave_one_marker() {
    let mut log = Log::default();
    log.push_run(5, 5, None, 0);
    put(&mut log, 1, 1, 0);
    let mut previous = EventId::new(5, 3);
    for epoch in (10..10_000).step_by(2) {
        log.push_run(epoch, epoch, Some(previous), 0);
        previous = EventId::new(epoch, 0);
    }
    assert_eq!(ids(&log, EventId::default()), ["5-0", "5-1", "9998-0"]);
    let last = log.after(EventId::new(5, 1)).next().map(|record| record.kind.clone());
    assert_eq!(last, Some(RecordKind::Run { previous: Some(EventId::new(5, 3)) }), "what they came after");
    assert!(log.knows(5) && log.knows(10) && log.knows(5000) && log.knows(9998));
    assert!(!log.knows(4) && !log.knows(6) && !log.knows(9) && !log.knows(9999));
    // One that made something, recorded or not, is one that readers may have to be told of.
    log.push_run(20_000, 20_000, Some(EventId::new(9998, 1)), 0);
    assert_eq!(ids(&log, EventId::new(5, 1)), ["9998-0", "20000-0"]);
}

#[test]
fn g6_markers_count_against_the_bound() {
    let mut log = Log::default();
    log.push_run(5, 5, None, 0);
    for epoch in 6..1000 {
        log.push_run(epoch, epoch, Some(EventId::new(epoch - 1, 1)), 0);
        log.trim(10, usize::MAX);
    }
    assert_eq!((log.records.len(), log.runs.len()), (10, 10));
    assert!(log.knows(7) && log.knows(995) && !log.knows(1000));
}
