//! Turns the messages of responses into updates, without any I/O.

use std::{borrow::Cow, collections::VecDeque};

use super::{
    Gap, Restart, Update,
    place::Place,
    words::{self, Word},
};
use crate::{
    model::stream::StreamState,
    route::classify::{Classify, Ends, Outcome},
    wire::{EventView, Message},
};

/// Reads the messages of one event source, over all of its responses.
#[derive(Debug)]
pub(super) struct Reader {
    /// The caller's own rules for terminal events, if it set any.
    ends: Option<Ends>,
    default_ends: Ends,
    place: Place,
    /// The id of the last message.
    last_event_id: String,
    /// The last event id at which a response broke off for a gap. It keeps the same gap from being yielded twice.
    gap_told_at: Option<String>,
    /// The reason why the response is about to break off, if the server has sent one.
    breaks: Option<String>,
    /// Whether the next attempt must carry no cursor, because its run was replaced.
    cursor_is_void: bool,
}

impl Reader {
    pub(super) fn new(ends: Option<Ends>, last_event_id: &str) -> Self {
        Self {
            ends,
            default_ends: default_ends(),
            place: Place::at(last_event_id),
            last_event_id: last_event_id.to_owned(),
            gap_told_at: None,
            breaks: None,
            cursor_is_void: false,
        }
    }

    /// Reads a message, and appends the updates that it means.
    pub(super) fn read(&mut self, message: Message, updates: &mut VecDeque<Update>) {
        if message.last_event_id.is_empty() && !self.last_event_id.is_empty() {
            // An empty id takes the cursor back (WHATWG HTML § 9.2.6).
            self.last_event_id.clear();
            self.place.arrive("");
        }
        // An event of a recorded stream sets its own id. The library's own messages set none.
        let sets_id = message.last_event_id != self.last_event_id;
        if !sets_id && let Some(word) = words::word(&message) {
            return self.word(word, updates);
        }
        let mut is_end = None;
        if sets_id {
            self.last_event_id.clone_from(&message.last_event_id);
            let arrival = self.place.arrive(&message.last_event_id);
            is_end = arrival.is_known.then_some(arrival.is_end);
            updates.extend(arrival.gap.map(Update::Gap));
            updates.extend(arrival.restart.map(Update::Restart));
        }
        updates.push_back(match self.end(&message, is_end) {
            Some(state) => Update::Ended(words::ended(message, state)),
            None => Update::Event(message),
        });
    }

    /// Takes the reason why the last response broke off, if the server has sent one.
    pub(super) fn take_breaks(&mut self) -> Option<String> {
        self.breaks.take()
    }

    /// Returns whether the next attempt must carry no cursor, and clears the cursor and the place if so.
    pub(super) fn take_void_cursor(&mut self) -> bool {
        let is_void = std::mem::take(&mut self.cursor_is_void);
        if is_void {
            self.last_event_id.clear();
            self.place = Place::default();
        }
        is_void
    }

    fn word(&mut self, word: Word, updates: &mut VecDeque<Update>) {
        match word {
            Word::Connected => {}
            Word::Gap(gap) => {
                self.place.told_gap();
                updates.push_back(Update::Gap(gap));
            }
            Word::Restart(restart) => {
                self.place.told_restart();
                updates.push_back(Update::Restart(restart));
            }
            Word::Breaks(reason) => {
                updates.extend(self.breaking(&reason));
                self.breaks = Some(reason);
            }
        }
    }

    /// Returns the update for the owner when a response is about to break off for this reason, if there is one.
    fn breaking(&mut self, reason: &str) -> Option<Update> {
        match reason {
            "restart" => {
                // The server would answer the old run's cursor with the same error again.
                self.cursor_is_void = true;
                Some(Update::Restart(Restart::default()))
            }
            // The server repeats the error at each attempt with the same cursor. The owner gets one `Gap`.
            "gap" if self.gap_told_at.as_ref() != Some(&self.last_event_id) => {
                self.gap_told_at = Some(self.last_event_id.clone());
                let after = Some(self.last_event_id.clone()).filter(|id| !id.is_empty());
                Some(Update::Gap(Gap { after, ..Gap::default() }))
            }
            _ => None,
        }
    }

    /// Returns `None` if the stream goes on after this message, else the state in which the stream ends, as far as it
    /// is known. `is_end` is whether the message's id is that of a terminal event; `None` for an id that is not the
    /// library's.
    fn end(&self, message: &Message, is_end: Option<bool>) -> Option<Option<StreamState>> {
        let classify = |ends: &Ends| {
            let event = EventView {
                name: Some(&*message.name).filter(|name| *name != "message").map(Cow::Borrowed),
                data: Cow::Borrowed(&message.data),
                id: None,
                retry: None,
            };
            ends.classify(&event).map(Outcome::state)
        };
        let own = self.ends.as_ref().and_then(classify);
        match is_end {
            _ if own.is_some() => Some(own),
            Some(true) => Some(classify(&self.default_ends)),
            // The server has classified the event by its own rules, and the id carries the result.
            Some(false) => None,
            None if self.ends.is_some() => None,
            None => classify(&self.default_ends).map(Some),
        }
    }
}

/// Returns the default rules of the library's routes, with the endings that the library itself writes.
fn default_ends() -> Ends {
    ["cancelled", "orphaned", "expired"]
        .into_iter()
        .fold(Ends::default(), |ends, name| ends.on_name(name, Outcome::Failed).on_type(name, Outcome::Failed))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads messages, each given as id, name and data, and returns the updates as text.
    fn read(reader: &mut Reader, messages: &[(&str, &str, &str)]) -> Vec<String> {
        let mut updates = VecDeque::new();
        for (id, name, data) in messages {
            let (name, data, last_event_id) = ((*name).to_owned(), (*data).to_owned(), (*id).to_owned());
            reader.read(Message { name, data, last_event_id, retry: None }, &mut updates);
        }
        let told = |update| match update {
            Update::Event(message) => message.data,
            Update::Gap(gap) => format!("gap {:?} {:?} {:?}", gap.after, gap.resumes_at, gap.missed),
            Update::Restart(restart) => format!("restart {:?}", restart.epoch),
            Update::Ended(ended) => format!("ended {:?} {:?}", ended.state, ended.reason),
            Update::Connected(_) | Update::Cut(_) => panic!("a reader knows no connections"),
        };
        updates.into_iter().map(told).collect()
    }

    #[test]
    fn words_are_told_as_what_they_are_and_once() {
        let mut reader = Reader::new(None, "e5-1");
        let told = read(
            &mut reader,
            &[
                ("e5-1", "connected", r#"{"streamId":"a"}"#),
                ("e5-1", "gap", r#"{"after":"e5-1","resumesAt":"e5-4","missed":2}"#),
                ("e5-4", "message", "four"),
                ("e5-4", "restart", r#"{"epoch":"9"}"#),
                ("e9-1", "message", "one"),
                ("e10-0", "cancelled", r#"{"reason":"stopped"}"#),
            ],
        );
        let gap = r#"gap Some("e5-1") Some("e5-4") Some(2)"#;
        assert_eq!(told, [gap, "four", "restart Some(9)", "one", r#"ended Some(Cancelled) Some("stopped")"#]);
    }

    #[test]
    fn a_silent_voice_is_read_by_its_ids() {
        let mut reader = Reader::new(None, "");
        let told = read(
            &mut reader,
            &[
                ("e5-1", "message", "a"),
                ("e5-3", "message", "b"),
                ("e9-1", "message", "c"),
                ("e10-0", "message", "[DONE]"),
            ],
        );
        assert_eq!(
            told,
            ["a", r#"gap Some("e5-1") Some("e5-3") Some(1)"#, "b", "restart Some(9)", "c", "ended None None"]
        );
    }

    #[test]
    fn an_error_of_the_library_says_why_the_response_breaks() {
        let error = |code: &str| format!(r#"{{"error":{{"message":"m","type":"stream_error","code":"{code}"}}}}"#);
        let mut reader = Reader::new(None, "");
        let told = read(&mut reader, &[("e5-1", "message", "a"), ("e5-1", "message", &error("shutdown"))]);
        assert_eq!((told, reader.take_breaks()), (vec!["a".to_owned()], Some("shutdown".to_owned())));

        let gap = vec![r#"gap Some("e5-1") None None"#.to_owned()];
        assert_eq!(read(&mut reader, &[("e5-1", "message", &error("gap"))]), gap);
        assert_eq!(read(&mut reader, &[("e5-1", "message", &error("gap"))]), Vec::<String>::new(), "it is said again");
        assert_eq!((reader.take_breaks(), reader.take_void_cursor()), (Some("gap".to_owned()), false));

        assert_eq!(read(&mut reader, &[("e5-1", "message", &error("restart"))]), ["restart None"]);
        assert!(reader.take_void_cursor() && !reader.take_void_cursor());
        // Without a cursor the new run comes from its first event, which must not count as a second restart.
        assert_eq!(read(&mut reader, &[("e9-1", "message", "b")]), ["b"]);
    }

    #[test]
    fn the_library_s_ids_say_what_is_terminal_where_there_are_any() {
        let mut reader = Reader::new(None, "");
        let named = ("e5-1", "completed", "{}");
        assert_eq!(read(&mut reader, &[named, ("e6-0", "message", "bye")]), ["{}", "ended None None"]);
        let mut own = Reader::new(Some(Ends::none().on_data("bye", Outcome::Completed)), "");
        assert_eq!(read(&mut own, &[("e5-1", "message", "bye")]), ["ended Some(Completed) None"]);
    }

    #[test]
    fn without_them_names_and_types_do() {
        for (name, data, expected) in [
            ("completed", "x", "ended Some(Completed) None"),
            ("orphaned", r#"{"reason":"node_lost"}"#, r#"ended Some(Orphaned) Some("node_lost")"#),
            ("message", r#"{"type":"expired"}"#, "ended Some(Expired) None"),
            ("message", "[DONE]", "[DONE]"),
        ] {
            for id in ["", "42"] {
                assert_eq!(read(&mut Reader::new(None, ""), &[(id, name, data)]), [expected]);
            }
        }
        let mut own = Reader::new(Some(Ends::openai_chat()), "");
        assert_eq!(
            read(&mut own, &[("", "completed", "x"), ("", "message", "[DONE]")]),
            ["x", "ended Some(Completed) None"]
        );
    }
}
