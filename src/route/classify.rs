//! Classifiers: they find the terminal event of a stream, and read from it whether the work succeeded.

use std::fmt;

use memchr::memmem::Finder;

use crate::{
    model::stream::StreamState,
    wire::{EventView, fields::payload_type},
};

/// The outcome of the work that a terminal event reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The work is done.
    Completed,
    /// The work failed.
    Failed,
}

impl Outcome {
    pub(crate) const fn state(self) -> StreamState {
        match self {
            Self::Completed => StreamState::Completed,
            Self::Failed => StreamState::Failed,
        }
    }
}

/// Finds the terminal events of a route's streams.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say which event ends a stream",
    label = "expected `Ends::named(…)`, another ready-made classifier, or a closure",
    note = "a closure takes an event and returns how it ends the stream, and its parameter's type must be written out: `|event: &resilient_sse::wire::EventView<'_>| …`"
)]
pub trait Classify: Send + Sync + 'static {
    /// Returns whether a block may be a terminal event, judged by its raw bytes.
    ///
    /// It is called for every event, so it should be cheap. It may return `true` for an event that is not terminal, but
    /// never `false` for one that is. Default: `true`.
    fn may_end(&self, block: &[u8]) -> bool {
        let _ = block;
        true
    }

    /// Returns the outcome if the event is terminal, and `None` otherwise. It is called if [`may_end`](Self::may_end)
    /// returned `true`.
    fn classify(&self, event: &EventView<'_>) -> Option<Outcome>;

    /// Returns whether the format requires a terminal event, so that a body that ends without one was cut off. Default:
    /// `false`.
    fn needs_terminal(&self) -> bool {
        false
    }

    /// Returns whether a body that ends after this event, given as its raw block, is complete without a terminal event.
    ///
    /// `None` keeps the result of the last event that had one. It is called for every event of formats that
    /// [need a terminal event](Self::needs_terminal), so it should be cheap. Default: `None`.
    fn completes(&self, block: &[u8]) -> Option<bool> {
        let _ = block;
        None
    }
}

/// A classifier that finds terminal events by their name, their JSON payload's `type`, or their data.
///
/// By default an event whose name or `type` is `completed` or `failed` is terminal.
///
/// ```
/// use resilient_sse::{Ends, Outcome};
///
/// let ends = Ends::none().on_type("job.done", Outcome::Completed).on_data("[STOP]", Outcome::Failed);
/// # let _ = ends;
/// ```
#[derive(Clone, Debug)]
pub struct Ends {
    rules: Vec<Rule>,
    /// Texts of which a block with a terminal event holds at least one, unless its JSON is written with escapes.
    needles: Vec<Finder<'static>>,
    /// A text that is part of every needle, if there is one. Searching for it first saves the other searches.
    common: Option<Finder<'static>>,
    /// Beginnings of the escapes with which JSON may write the type of a terminal event.
    escapes: Vec<Finder<'static>>,
    needs_terminal: bool,
    /// The JSON key whose value says why a chat completion is complete.
    finish: Option<Finder<'static>>,
}

#[derive(Clone, Debug)]
struct Rule {
    place: Place,
    text: String,
    outcome: Outcome,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Name,
    Type,
    Data,
    /// The beginning of the data, after leading blanks.
    Start,
}

impl Default for Ends {
    fn default() -> Self {
        Self::none()
            .on_name("completed", Outcome::Completed)
            .on_name("failed", Outcome::Failed)
            .on_type("completed", Outcome::Completed)
            .on_type("failed", Outcome::Failed)
    }
}

impl Ends {
    /// Returns a classifier for which no event is terminal. The stream ends with its body.
    #[must_use]
    pub fn none() -> Self {
        Self {
            rules: Vec::new(),
            needles: Vec::new(),
            common: None,
            escapes: Vec::new(),
            needs_terminal: false,
            finish: None,
        }
    }

    /// Returns the classifier for OpenAI's chat completions and compatible APIs: `data: [DONE]` is required.
    ///
    /// Any data that begins with `[DONE]`, after leading blanks, is terminal, as for OpenAI's own clients. Some
    /// providers leave it out, so a body without it is complete if the `finish_reason` of its last chunk that has one
    /// is a string.
    #[must_use]
    pub fn openai_chat() -> Self {
        Self { finish: Some(Finder::new(FINISH_REASON)), ..Self::ai_sdk() }
    }

    /// Returns the classifier for OpenAI's responses: one of `response.completed`, `response.incomplete`,
    /// `response.failed` and `error` is required.
    #[must_use]
    pub fn openai_responses() -> Self {
        Self::none()
            .on_type("response.completed", Outcome::Completed)
            .on_type("response.incomplete", Outcome::Completed)
            .on_type("response.failed", Outcome::Failed)
            .on_type("error", Outcome::Failed)
            .always()
    }

    /// Returns the classifier for Anthropic's messages: `message_stop` or `error` is required.
    #[must_use]
    pub fn anthropic() -> Self {
        Self::none().on_type("message_stop", Outcome::Completed).on_type("error", Outcome::Failed).always()
    }

    /// Returns the classifier for the AI SDK's UI message stream: `data: [DONE]` is required.
    #[must_use]
    pub fn ai_sdk() -> Self {
        Self::none().rule(Place::Start, "[DONE]", Outcome::Completed).always()
    }

    /// Makes an event of this name terminal.
    #[must_use]
    pub fn on_name(self, name: &str, outcome: Outcome) -> Self {
        self.rule(Place::Name, name, outcome)
    }

    /// Makes an event terminal whose data is a JSON object with this `type`.
    #[must_use]
    pub fn on_type(mut self, kind: &str, outcome: Outcome) -> Self {
        for escape in escapes_of(kind) {
            add(&mut self.escapes, escape);
        }
        self.rule(Place::Type, kind, outcome)
    }

    /// Makes an event with exactly this data terminal.
    #[must_use]
    pub fn on_data(self, data: &str, outcome: Outcome) -> Self {
        self.rule(Place::Data, data, outcome)
    }

    /// Requires a terminal event: if the body ends without one, it was cut off, and the stream is `failed`, reason
    /// `eof`.
    #[must_use]
    pub fn always(mut self) -> Self {
        self.needs_terminal = true;
        self
    }

    fn rule(mut self, place: Place, text: &str, outcome: Outcome) -> Self {
        // Each line of an event's data is a line of its own in the block.
        let needle = text.split('\n').max_by_key(|line| line.len()).unwrap_or_default();
        add(&mut self.needles, needle);
        self.common = common(&self.needles);
        self.rules.push(Rule { place, text: text.to_owned(), outcome });
        self
    }
}

impl Classify for Ends {
    fn may_end(&self, block: &[u8]) -> bool {
        let holds = |needle: &Finder<'_>, text: &[u8]| needle.find(text).is_some();
        let may_hold_one = self.common.as_ref().is_none_or(|common| holds(common, block));
        if may_hold_one && self.needles.iter().any(|needle| holds(needle, block)) {
            return true;
        }
        let escaped = memchr::memchr(b'\\', block).map(|at| &block[at..]);
        escaped.is_some_and(|text| self.escapes.iter().any(|escape| holds(escape, text)))
    }

    fn classify(&self, event: &EventView<'_>) -> Option<Outcome> {
        let mut kind = None;
        let matches = |rule: &&Rule| {
            let text = rule.text.as_str();
            match rule.place {
                Place::Name => event.name.as_deref() == Some(text),
                Place::Data => event.data == text,
                Place::Start => event.data.trim_start().starts_with(text),
                Place::Type => kind.get_or_insert_with(|| payload_type(&event.data)).as_deref() == Some(text),
            }
        };
        self.rules.iter().find(matches).map(|rule| rule.outcome)
    }

    fn needs_terminal(&self) -> bool {
        self.needs_terminal
    }

    fn completes(&self, block: &[u8]) -> Option<bool> {
        let finish = self.finish.as_ref()?;
        let reasons = finish.find_iter(block).map(|at| is_text_value(&block[at + FINISH_REASON.len()..]));
        reasons.reduce(|one, other| one || other)
    }
}

/// Adds a text to search blocks for, unless it is there already.
fn add(needles: &mut Vec<Finder<'static>>, text: &str) {
    if needles.iter().all(|held| held.needle() != text.as_bytes()) {
        needles.push(Finder::new(text).into_owned());
    }
}

/// Returns the longest text of at least two bytes that is part of all needles, if there are several and the first is at
/// most 64 bytes long. The cost is cubic in the length of the first needle.
fn common(needles: &[Finder<'static>]) -> Option<Finder<'static>> {
    const SHORT: usize = 64;
    let (first, others) = needles.split_first().filter(|(_, others)| !others.is_empty())?;
    if first.needle().len() > SHORT {
        return None;
    }
    let parts = (2..=first.needle().len()).rev().flat_map(|len| first.needle().windows(len));
    let mut finders = parts.map(Finder::new);
    let found = finders.find(|part| others.iter().all(|needle| part.find(needle.needle()).is_some()));
    found.map(Finder::into_owned)
}

/// Returns the beginnings of the escapes in JSON that stands for this text but does not contain it literally (RFC 8259
/// § 7). JSON must escape `"`, `\` and control characters. It may escape `/`, as PHP does, and may write any character
/// with `\u`.
fn escapes_of(text: &str) -> impl Iterator<Item = &'static str> {
    let must_be = text.contains(|c: char| c == '"' || c == '\\' || c.is_ascii_control());
    let slash = text.contains('/').then_some("\\/");
    let unicode = if text.is_ascii() { "\\u00" } else { "\\u" };
    [must_be.then_some("\\"), slash, Some(unicode)].into_iter().flatten()
}

/// The key in an OpenAI chunk. A match is a key, since within a JSON string the quotes would be escaped.
const FINISH_REASON: &str = r#""finish_reason""#;

/// Whether the value that follows a JSON key is a string.
fn is_text_value(rest: &[u8]) -> bool {
    let rest = rest.trim_ascii_start().strip_prefix(b":");
    rest.is_some_and(|value| value.trim_ascii_start().starts_with(b"\""))
}

impl fmt::Debug for dyn Classify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Classify")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_terminal_is_found_whatever_its_rules_have_in_common() {
        let job = Ends::none().on_type("job/done", Outcome::Completed).on_data("[STOP]", Outcome::Failed);
        let alike = Ends::none().on_name("ab", Outcome::Completed).on_name("xab", Outcome::Failed);
        let sets = [
            (
                Ends::default(),
                vec!["event: completed\ndata: x", r#"data: {"type":"failed"}"#, r#"data: {"type":"fai\u006ced"}"#],
            ),
            (job, vec![r#"data: {"type":"job/done"}"#, r#"data: {"type":"job\/done"}"#, "data: [STOP]"]),
            (alike, vec!["event: ab\ndata: 1", "event: xab\ndata: 1"]),
            (Ends::openai_responses(), vec![r#"data: {"type":"error"}"#, r#"data: {"type":"response.failed"}"#]),
            (Ends::none().on_name("one", Outcome::Completed), vec!["event: one\ndata: 1"]),
        ];
        for (ends, blocks) in sets {
            for block in blocks {
                assert!(ends.may_end(block.as_bytes()), "{block}");
                assert!(ends.classify(&crate::wire::Framing::view(&crate::wire::Sse, block.as_bytes())).is_some());
            }
            for block in ["data: {\"n\":1}", "event: token\ndata: a\\nb", "data: needed, settled"] {
                assert!(!ends.may_end(block.as_bytes()), "{block}");
            }
        }
        assert_eq!(Ends::default().common.as_ref().map(|common| common.needle().to_vec()), Some(b"le".to_vec()));
        assert!(Ends::openai_responses().common.is_none() && Ends::none().common.is_none());
    }
}
