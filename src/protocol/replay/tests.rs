use bytes::Bytes;

use super::*;
use crate::model::stream::{Ending, Frame, StreamState};

pub(super) fn run(epoch: u64, previous: Option<(u64, u64)>) -> Record {
    let previous = previous.map(|(epoch, seq)| EventId::new(epoch, seq));
    Record { id: EventId::new(epoch, 0), at: 0, kind: RecordKind::Run { previous } }
}

pub(super) fn event(epoch: u64, seq: u64) -> Record {
    events(epoch, seq, seq)
}

pub(super) fn events(epoch: u64, first: u64, last: u64) -> Record {
    let frame = Frame { count: last + 1 - first, bytes: Bytes::new() };
    Record { id: EventId::new(epoch, last), at: 0, kind: RecordKind::Events(frame) }
}

pub(super) fn end(epoch: u64, last: u64) -> Record {
    let ending = Ending { state: StreamState::Completed, reason: None, event: None };
    let id = EventId::terminal(epoch);
    let last = EventId::new(epoch, last);
    Record { id, at: 0, kind: RecordKind::End(Box::new(Ended { ending, id, last, at: 0 })) }
}

/// Writes what a reader receives as text: `-n` for a gap of n events, `-?` for a gap of unknown size, `!` for a
/// restart, and for the events of an entry the first one that the reader receives and the last one.
fn replayed(mut reader: Replay, log: &[Record]) -> String {
    let mut out = Vec::new();
    for record in log {
        let Some(step) = reader.step(record) else { continue };
        let (id, first) = (record.id, record.first());
        let next = EventId::new(first.epoch, first.seq + step.skipped);
        if let Some(gap) = step.gap {
            assert_eq!(gap.resumes_at, Some(next));
            out.push(gap.missed.map_or("-?".to_owned(), |missed| format!("-{missed}")));
        }
        if step.restart {
            out.push("!".to_owned());
        }
        out.push(format!("{}-{}", next.epoch, next.seq));
        if next != id {
            out.push(format!("..{}", id.seq));
        }
    }
    out.join(" ")
}

/// Creates a gap with missing events.
fn gap(after: Option<(u64, u64)>, resumes_at: (u64, u64), missed: Option<u64>) -> Gap {
    let after = after.map(|(epoch, seq)| EventId::new(epoch, seq));
    let resumes_at = Some(EventId::new(resumes_at.0, resumes_at.1));
    Gap { after, resumes_at, missed, of_nothing_known: false }
}

pub(super) fn after(epoch: u64, seq: u64) -> Replay {
    Replay::after(EventId::new(epoch, seq))
}

#[test]
fn everything_after_the_cursor_once() {
    let log = [run(5, None), event(5, 1), event(5, 2), event(5, 3), end(5, 3)];
    assert_eq!(replayed(Replay::fresh(Owed::Run), &log), "5-1 5-2 5-3 6-0");
    assert_eq!(replayed(after(5, 2), &log), "5-3 6-0");
    assert_eq!(replayed(after(5, 3), &log), "6-0");
    assert_eq!(replayed(after(6, 0), &log), "");
}

#[test]
fn of_events_that_are_held_together_those_after_the_cursor() {
    let log = [run(5, None), events(5, 1, 64), events(5, 65, 70), events(5, 80, 99), end(5, 99)];
    assert_eq!(replayed(Replay::fresh(Owed::Run), &log), "5-1 ..64 5-65 ..70 -9 5-80 ..99 6-0");
    assert_eq!(replayed(after(5, 1), &log[..2]), "5-2 ..64");
    assert_eq!(replayed(after(5, 63), &log), "5-64 5-65 ..70 -9 5-80 ..99 6-0");
    assert_eq!(replayed(after(5, 64), &log[..3]), "5-65 ..70");
    assert_eq!(replayed(after(5, 70), &log[2..4]), "-9 5-80 ..99");
    assert_eq!(replayed(after(5, 75), &log[2..4]), "-4 5-80 ..99", "a cursor in the middle of what is lost");
    assert_eq!(replayed(after(5, 99), &log), "6-0");
    assert_eq!(replayed(after(4, 3), &log[1..2]), "-? ! 5-1 ..64", "of another run it has none of them");
    assert_eq!(replayed(Replay::fresh(Owed::Nothing), &log[2..3]), "5-65 ..70");
}

#[test]
fn what_was_trimmed_or_never_recorded_is_a_gap() {
    assert_eq!(replayed(after(5, 2), &[event(5, 6)]), "-3 5-6");
    assert_eq!(replayed(after(5, 2), &[event(5, 3), event(5, 9), end(5, 9)]), "5-3 -5 5-9 6-0");
}

#[test]
fn g1_a_reader_without_a_cursor_is_owed_the_run_from_its_first_event() {
    let whole = || Replay::fresh(Owed::Run);
    assert_eq!(replayed(whole(), &[event(5, 1), event(5, 2)]), "5-1 5-2");
    assert_eq!(replayed(whole(), &[event(5, 6), event(5, 8)]), "-5 5-6 -1 5-8", "trimmed");
    assert_eq!(replayed(whole(), &[run(5, None), event(5, 6)]), "-5 5-6", "never recorded, or lost with the store");
    assert_eq!(replayed(whole(), &[end(5, 3)]), "-3 6-0", "none is held");
    assert_eq!(replayed(whole(), &[end(5, 0)]), "6-0", "none was made");
    assert_eq!(replayed(whole(), &[event(5, 1), end(5, 3)]), "5-1 -2 6-0");
    // Events before the run that the reader gets belong to another run.
    assert_eq!(replayed(whole(), &[run(9, Some((5, 3))), event(9, 1)]), "9-1");
    let mut reader = whole();
    let step = reader.step(&event(5, 6)).expect("news");
    assert_eq!(step.gap, Some(gap(None, (5, 6), Some(5))));
    assert!(!step.restart, "it has nothing of another run");
}

#[test]
fn a_feeds_reader_is_owed_nothing_before_its_first_event() {
    let feed = || Replay::fresh(Owed::Nothing);
    assert_eq!(replayed(feed(), &[event(5, 6), event(5, 8)]), "5-6 -1 5-8", "but all that comes after");
    assert_eq!(replayed(feed(), &[run(5, None), event(5, 6)]), "5-6");
    assert_eq!(replayed(feed(), &[end(5, 3)]), "6-0");
    assert_eq!(replayed(feed(), &[event(5, 6), run(9, Some((5, 7))), event(9, 1)]), "5-6 -1 ! 9-1");
}

#[test]
fn a_gap_is_told_after_what_the_reader_has() {
    let mut reader = after(5, 3);
    for marker in [run(9, Some((5, 3))), run(12, Some((9, 0)))] {
        assert_eq!(reader.step(&marker), None);
    }
    let step = reader.step(&event(12, 4)).expect("news");
    assert_eq!(
        step,
        Step { gap: Some(gap(Some((5, 3)), (12, 4), Some(3))), restart: true, skipped: 0 },
        "not after a marker, which nobody is given"
    );
}

#[test]
fn g1_a_follower_of_an_emptied_store_is_told_of_a_gap_and_a_restart() {
    let mut reader = after(5, 1);
    reader.step(&event(5, 2));
    let step = reader.forgotten().step(&event(9, 1)).expect("news");
    assert_eq!(step, Step { gap: Some(gap(Some((5, 2)), (9, 1), None)), restart: true, skipped: 0 });
    let step = Replay::fresh(Owed::Run).forgotten().step(&event(9, 1)).expect("news");
    assert!(!step.restart, "it has nothing of another run");
}

/// The store may lose a log again before the reader receives anything of the new one.
#[test]
fn g1_a_follower_of_a_store_that_is_emptied_twice_keeps_its_place() {
    let reader = after(5, 1).forgotten().forgotten();
    let step = reader.clone().step(&event(9, 1)).expect("news");
    assert_eq!(step, Step { gap: Some(gap(Some((5, 1)), (9, 1), None)), restart: true, skipped: 0 });
}

#[test]
fn a_reader_tells_how_far_it_read() {
    let mut reader = Replay::fresh(Owed::Run);
    assert_eq!(reader.at(), None);
    reader.step(&run(5, None));
    assert_eq!(reader.at(), Some(EventId::new(5, 0)));
    reader.step(&event(5, 1));
    assert_eq!((reader.at(), after(5, 2).at()), (Some(EventId::new(5, 1)), Some(EventId::new(5, 2))));
}

#[test]
fn a_gap_crosses_runs_if_the_next_event_is_another_runs() {
    let crosses = |after, next| gap(after, next, None).crosses_runs();
    assert!(crosses(Some((5, 3)), (9, 1)));
    assert!(crosses(Some((5, 3)), (10, 0)), "the end of the run 9");
    assert!(!crosses(Some((5, 3)), (5, 6)));
    assert!(!crosses(Some((5, 3)), (6, 0)), "the end of the run 5");
    assert!(!crosses(None, (5, 6)), "the reader has seen no run");
    assert!(!Gap { resumes_at: None, ..gap(Some((5, 3)), (5, 6), None) }.crosses_runs());
}

#[test]
fn what_cannot_be_read_is_of_unknown_size() {
    let gap_of = |mut reader: Replay| {
        reader.unreadable();
        reader.hand_over(EventId::new(9, 0)).gap
    };
    assert_eq!(gap_of(after(5, 1)), Some(gap(Some((5, 1)), (9, 1), None)));
    assert_eq!(gap_of(Replay::fresh(Owed::Run)), Some(gap(None, (9, 1), None)));
    let mut reader = after(5, 1);
    reader.step(&run(8, Some((5, 3))));
    assert_eq!(gap_of(reader), Some(gap(Some((5, 1)), (9, 1), None)), "two and more are missing");
}

#[test]
fn a_loss_at_the_very_end_is_a_gap() {
    assert_eq!(replayed(after(5, 2), &[event(5, 3), end(5, 7)]), "5-3 -4 6-0");
    assert_eq!(replayed(after(5, 9), &[end(5, 7)]), "6-0", "a buffered client may be ahead of the log");
    assert_eq!(replayed(after(4, 9), &[end(5, 7)]), "-? ! 6-0");
}

#[test]
fn runs_are_divided_by_a_restart_and_their_losses_shown() {
    let log = [run(5, None), event(5, 1), run(9, Some((5, 3))), event(9, 1), end(9, 1)];
    assert_eq!(replayed(Replay::fresh(Owed::Run), &log), "5-1 -2 ! 9-1 10-0");
    assert_eq!(replayed(after(5, 3), &log), "! 9-1 10-0");
    assert_eq!(replayed(after(5, 4), &log), "! 9-1 10-0");
    assert_eq!(replayed(after(5, 1), &log[3..]), "-? ! 9-1 10-0", "the marker is trimmed");
    assert_eq!(replayed(after(5, 1), &[run(9, None), event(9, 1)]), "-? ! 9-1", "the store was emptied between");
    assert_eq!(replayed(after(5, 1), &[run(9, None), event(9, 4)]), "-? ! 9-4");
    for owed in [Owed::Run, Owed::Stream] {
        let empty = [run(5, None), run(9, Some((5, 3))), event(9, 1)];
        assert_eq!(replayed(Replay::fresh(owed), &empty), "-3 9-1", "nothing is held of the first run");
        assert_eq!(replayed(Replay::fresh(owed), &[run(5, None), run(9, None), event(9, 1)]), "-? 9-1");
        let whole = [run(5, None), run(9, Some((5, 0))), event(9, 1)];
        assert_eq!(replayed(Replay::fresh(owed), &whole), "9-1", "nothing was made in it");
    }
    let empty = [run(9, Some((5, 3))), run(12, Some((9, 0))), event(12, 1)];
    assert_eq!(replayed(after(5, 2), &empty), "-1 ! 12-1", "an empty run between");
    let only_an_end = [run(9, Some((5, 3))), end(9, 0)];
    assert_eq!(replayed(after(5, 3), &only_an_end), "! 10-0", "an end that is not the first run's");
}

#[test]
fn a_cursor_that_says_nothing_here_gets_a_gap_and_all_that_is_held() {
    let log = [run(5, None), event(5, 1), run(9, Some((5, 1))), event(9, 1)];
    assert_eq!(replayed(Replay::unknown(None, Owed::Run), &log), "-? 5-1 ! 9-1");
    assert_eq!(replayed(Replay::unknown(Some(EventId::new(4, 7)), Owed::Run), &log), "-? ! 5-1 ! 9-1");
}

/// Returns the first gap that is reported to a reader.
fn first_gap(mut reader: Replay, log: &[Record]) -> Option<Gap> {
    log.iter().find_map(|record| reader.step(record)?.gap)
}

#[test]
fn g1_a_gap_is_of_nothing_known_only_where_all_is_held() {
    let unknown = |owed, log: &[_]| first_gap(Replay::unknown(None, owed), log).expect("it is told").of_nothing_known;
    for owed in [Owed::Run, Owed::Nothing] {
        assert!(unknown(owed, &[run(5, None), event(5, 1)]));
        assert!(unknown(owed, &[event(5, 1), end(5, 1)]), "the marker is trimmed");
        assert!(unknown(owed, &[run(5, None), end(5, 0)]));
    }
    for log in [&[event(5, 16)][..], &[run(5, None), event(5, 3)], &[end(5, 3)]] {
        assert!(!unknown(Owed::Run, log), "{log:?}");
        assert!(unknown(Owed::Nothing, log), "a feed's reader is owed nothing before its first event: {log:?}");
    }
    assert!(
        !first_gap(Replay::unknown(Some(EventId::new(4, 7)), Owed::Run), &[event(5, 1)])
            .expect("it is told")
            .of_nothing_known
    );
}

/// The log holds the start of one run and an event of the next run, whose own start is trimmed. So the number of events
/// between the two is not known.
#[test]
fn g1_a_reader_that_was_given_nothing_is_told_what_it_missed_between_two_runs() {
    let log = [run(5, None), event(9, 4)];
    assert_eq!(first_gap(Replay::fresh(Owed::Run), &log), Some(gap(None, (9, 4), None)));
    assert_eq!(first_gap(Replay::unknown(None, Owed::Run), &log), Some(gap(None, (9, 4), None)));
}

/// A reader that loses its position before it receives anything is owed the same events as before.
#[test]
fn g1_a_reader_of_an_emptied_store_is_owed_the_run_that_it_gets() {
    let owed = |owed| {
        let mut reader = Replay::fresh(owed);
        reader.step(&run(5, None));
        first_gap(reader.forgotten(), &[event(9, 4)]).expect("it is told").of_nothing_known
    };
    assert_eq!((owed(Owed::Run), owed(Owed::Nothing)), (false, true));
}

#[test]
fn a_reader_of_nothing_gets_the_run_that_it_goes_over_to_whole() {
    let mut reader = Replay::unknown(None, Owed::Nothing);
    reader.unreadable();
    let step = reader.hand_over(EventId::new(9, 0));
    assert!(step.gap.expect("it is told").of_nothing_known && !step.restart);
}

#[test]
fn a_reader_goes_over_to_a_live_run() {
    let mut reader = after(5, 1);
    assert_eq!(reader.step(&run(9, Some((5, 3)))), None);
    let step = reader.hand_over(EventId::new(9, 0));
    assert_eq!(step, Step { gap: Some(gap(Some((5, 1)), (9, 1), Some(2))), restart: true, skipped: 0 });
}
