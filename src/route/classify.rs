//! Which event is the last one, and what it says of the work.

use std::fmt;

use memchr::memmem::Finder;

use crate::{
    model::stream::StreamState,
    wire::{EventView, fields::payload_type},
};

/// How the work went, as a terminal event says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done.
    Completed,
    /// It failed.
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

/// Knows a wire format's terminal events.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say which event ends a stream",
    label = "expected `Ends::named(…)`, another ready-made classifier, or a closure",
    note = "a closure takes an event and returns how it ends the stream, and its parameter's type must be written out: `|event: &resilient_sse::wire::EventView<'_>| …`"
)]
pub trait Classify: Send + Sync + 'static {
    /// Whether a block may be a terminal event, from its raw bytes. Called for every event: it
    /// should be cheap, and may be wrong only by saying `true`. Default: `true`.
    fn may_end(&self, block: &[u8]) -> bool {
        let _ = block;
        true
    }

    /// How the stream ends with this event, if it does. Called where [`may_end`](Self::may_end) says so.
    fn classify(&self, event: &EventView<'_>) -> Option<Outcome>;

    /// Whether the format always ends with a terminal event, so that a body which ends without one
    /// was cut off. Default: `false`.
    fn needs_terminal(&self) -> bool {
        false
    }

    /// Returns whether a body that ends after this event (given as its raw block) is complete without a terminal event;
    /// `None` if the event says nothing about that. The last event that says something counts. Called for every event of formats that
    /// [need a terminal one](Self::needs_terminal): it should be cheap. Default: `None`.
    fn completes(&self, block: &[u8]) -> Option<bool> {
        let _ = block;
        None
    }
}

/// Terminal events by their name, their JSON payload's `type`, or their whole data.
///
/// The default knows `completed` and `failed`, by name or by type.
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
    /// What a block with a terminal event holds one of, unless its JSON is written with escapes.
    needles: Vec<Finder<'static>>,
    /// What is part of each of them, if there is such a text: one search instead of several.
    common: Option<Finder<'static>>,
    /// The escapes with which JSON may write the type of a terminal event.
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
    /// How the data begins, blanks apart.
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
    /// No event is terminal: the body's end is the stream's.
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

    /// OpenAI's chat completions, and all that imitate them: `data: [DONE]`, always.
    ///
    /// As for OpenAI's own clients, data that begins with `[DONE]` counts, blanks before it or not. Some providers
    /// leave it out: a body is complete if its last chunk with a `finish_reason` holds a text there, and not null.
    #[must_use]
    pub fn openai_chat() -> Self {
        Self { finish: Some(Finder::new(FINISH_REASON)), ..Self::ai_sdk() }
    }

    /// OpenAI's responses: `response.completed`, `response.incomplete`, `response.failed` or `error`, always.
    #[must_use]
    pub fn openai_responses() -> Self {
        Self::none()
            .on_type("response.completed", Outcome::Completed)
            .on_type("response.incomplete", Outcome::Completed)
            .on_type("response.failed", Outcome::Failed)
            .on_type("error", Outcome::Failed)
            .always()
    }

    /// Anthropic's messages: `message_stop` or `error`, always.
    #[must_use]
    pub fn anthropic() -> Self {
        Self::none().on_type("message_stop", Outcome::Completed).on_type("error", Outcome::Failed).always()
    }

    /// The AI SDK's UI message stream: `data: [DONE]`, always.
    #[must_use]
    pub fn ai_sdk() -> Self {
        Self::none().rule(Place::Start, "[DONE]", Outcome::Completed).always()
    }

    /// An event of this name is terminal.
    #[must_use]
    pub fn on_name(self, name: &str, outcome: Outcome) -> Self {
        self.rule(Place::Name, name, outcome)
    }

    /// An event whose data is a JSON object with this `type` is terminal.
    #[must_use]
    pub fn on_type(mut self, kind: &str, outcome: Outcome) -> Self {
        for escape in escapes_of(kind) {
            add(&mut self.escapes, escape);
        }
        self.rule(Place::Type, kind, outcome)
    }

    /// An event with exactly this data is terminal.
    #[must_use]
    pub fn on_data(self, data: &str, outcome: Outcome) -> Self {
        self.rule(Place::Data, data, outcome)
    }

    /// A body that ends without a terminal event was cut off: the stream failed, reason `eof`.
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

/// Adds a text that blocks are searched for, once.
fn add(needles: &mut Vec<Finder<'static>>, text: &str) {
    if needles.iter().all(|held| held.needle() != text.as_bytes()) {
        needles.push(Finder::new(text).into_owned());
    }
}

/// The longest text, of two bytes at least, that is part of several needles, if these are short. O(bytes of the first one, cubed).
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

/// The beginnings of the escapes of which JSON holds one where it does not hold this text as it is (RFC 8259 § 7): `/` may be
/// escaped, as PHP does, `"`, `\` and control characters must be, and `\u` may stand for any character.
fn escapes_of(text: &str) -> impl Iterator<Item = &'static str> {
    let must_be = text.contains(|c: char| c == '"' || c == '\\' || c.is_ascii_control());
    let slash = text.contains('/').then_some("\\/");
    let unicode = if text.is_ascii() { "\\u00" } else { "\\u" };
    [must_be.then_some("\\"), slash, Some(unicode)].into_iter().flatten()
}

/// The key in an OpenAI chunk; within a JSON string its quotes would be escaped.
const FINISH_REASON: &str = r#""finish_reason""#;

/// Whether a JSON key is followed by a string, as its value.
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
