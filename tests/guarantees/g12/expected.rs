//! What a client must get: the table of the guarantee.

use std::time::Duration;

use resilient_sse::Voice;

use crate::g12::client::{End, Got};

/// The kind of a way to end.
#[derive(Clone, Copy, Debug)]
pub enum Ends {
    /// The stream is finished, in its producer's own words or by the end of its body: every voice ends cleanly.
    Finished,
    /// The stream has ended in this state and for this reason, and the library says so where the voice has a word for
    /// it.
    Terminal(&'static str, &'static str),
    /// The stream is not finished, and the client is told to reconnect. A voice with a form for errors uses this code.
    Unfinished(&'static str),
    /// The client cannot be served now. It is told to reconnect, before anything else.
    ComeAgain,
    /// Events were lost. Voices with a word for it say so and go on.
    Gap,
    /// The work began anew. Voices with a word for it say so and go on. In `Silent` the ids show it.
    Restart,
}

/// Returns a voice's text for an ending that the library supplies.
fn ending(voice: Voice, state: &str, reason: &str) -> Option<String> {
    match voice {
        Voice::Named => Some(format!("event: {state}\ndata: {{\"reason\":\"{reason}\"}}\n")),
        Voice::Json => Some(format!("data: {{\"reason\":\"{reason}\",\"type\":\"{state}\"}}\n")),
        Voice::OpenAi => Some(error(reason)),
        Voice::Silent => None,
        other => panic!("how does {other:?} word it?"),
    }
}

/// The beginning of an error in the voice for OpenAI's clients.
fn error(code: &str) -> String {
    format!("data: {{\"error\":{{\"code\":\"{code}\",")
}

/// Returns a voice's text for a body that does not continue with the next event.
fn notice(voice: Voice, name: &str) -> String {
    match voice {
        Voice::Named => format!("event: {name}\n"),
        _ => format!("\"type\":\"{name}\""),
    }
}

impl Ends {
    /// Judges the response. `last` is the last text before the end.
    pub fn judge(self, voice: Voice, last: &str, got: &Got) {
        let told = || format!("{self:?} in {voice:?}: {got:#?}");
        assert_eq!(got.status, 200, "{}", told());
        assert!(got.text.contains(last), "what was said before has arrived: {}", told());
        match self {
            Self::Finished => assert_eq!(got.end, End::Clean, "{}", told()),
            Self::Terminal(state, reason) => match ending(voice, state, reason) {
                Some(word) => {
                    assert!(got.text.contains(&word), "{word:?} is said: {}", told());
                    assert_eq!(got.end, End::Clean, "{}", told());
                }
                None => breaks(voice, reason, got),
            },
            Self::Unfinished(code) => breaks(voice, code, got),
            Self::ComeAgain => {
                assert_eq!(got.end, End::Broken, "{}", told());
                let delay = got.text.strip_prefix("retry: ").and_then(|text| text.trim_end().parse::<u64>().ok());
                assert!(delay.is_some_and(|delay| (1000..=5000).contains(&delay)), "{}", told());
            }
            Self::Gap | Self::Restart => {
                let name = if matches!(self, Self::Gap) { "gap" } else { "restart" };
                match voice {
                    Voice::Named | Voice::Json => {
                        assert!(got.text.contains(&notice(voice, name)), "{}", told());
                        assert_eq!(got.end, End::Left, "it goes on: {}", told());
                    }
                    Voice::Silent if matches!(self, Self::Restart) => {
                        assert_eq!(got.end, End::Left, "it goes on: {}", told());
                    }
                    _ => breaks(voice, name, got),
                }
            }
        }
    }

    /// Returns whether the body goes on in this voice.
    pub fn goes_on(self, voice: Voice) -> bool {
        match self {
            Self::Gap => matches!(voice, Voice::Named | Voice::Json),
            Self::Restart => voice != Voice::OpenAi,
            Self::Finished | Self::Terminal(..) | Self::Unfinished(_) | Self::ComeAgain => false,
        }
    }
}

/// Asserts that the body broke off, after the reconnect delay and, in a voice with a form for errors, the error.
fn breaks(voice: Voice, code: &str, got: &Got) {
    let told = || format!("in {voice:?}: {got:#?}");
    assert_eq!(got.end, End::Broken, "{}", told());
    assert_eq!(got.text.matches("retry: ").count(), 1, "{}", told());
    assert_eq!(got.text.contains(r#"data: {"error":{"#), voice == Voice::OpenAi, "{}", told());
    assert!(voice != Voice::OpenAi || got.text.contains(&error(code)), "`{code}`, {}", told());
    assert!(!got.text.contains("event: completed"), "{}", told());
}

/// The pause before a break, in which the transport flushes and the client reads.
pub const PAUSE: Duration = Duration::from_millis(100);
