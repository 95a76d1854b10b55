//! Recognizes the messages that the library itself writes into a stream, in each voice that has them.

use serde_json::{Map, Value};

use super::{Ended, Gap, Restart};
use crate::{
    model::stream::{StreamState, reason},
    wire::{Message, fields::payload_type},
};

/// The longest message that can be one of the library's, in bytes. The longest parts are two ids of up to 171 bytes
/// each.
const LONGEST_WORD: usize = 1024;

/// A message that the library writes between the events of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Connected,
    Gap(Gap),
    Restart(Restart),
    /// The response is about to break off for this reason, such as `gap` or `restart`. Only the voice `OpenAi` sends
    /// it.
    Breaks(String),
}

/// Returns the library's word in a message, if there is one. The library's words set no id of their own, so call it only
/// for a message without one.
///
/// A host's own event may have the same name. So the data must have exactly the fields that the library writes.
pub(super) fn word(message: &Message) -> Option<Word> {
    if message.data.len() > LONGEST_WORD || !message.data.starts_with('{') {
        return None;
    }
    let mut said: Map<String, Value> = serde_json::from_str(&message.data).ok()?;
    let is_unnamed = message.name == "message";
    let name = match said.remove("type").filter(|_| is_unnamed) {
        Some(Value::String(name)) => name,
        None if is_unnamed => return openai(&said).map(|code| Word::Breaks(code.to_owned())),
        None => message.name.clone(),
        Some(_) => return None,
    };
    let (mut known, fields) = (said.len(), &said);
    let mut field = |name: &str| {
        known = known.wrapping_sub(usize::from(fields.contains_key(name)));
        fields.get(name)
    };
    let word = match &*name {
        "connected" => field("streamId")?.as_str().map(|_| Word::Connected),
        "restart" => {
            let epoch = field("epoch")?.as_str()?.parse().ok()?;
            Some(Word::Restart(Restart { epoch: Some(epoch) }))
        }
        "gap" => {
            let gap = Gap {
                after: id_or_null(field("after")?)?,
                resumes_at: id_or_null(field("resumesAt")?)?,
                missed: number_or_null(field("missed")?)?,
            };
            Some(Word::Gap(gap))
        }
        _ => None,
    };
    word.filter(|_| known == 0)
}

fn id_or_null(value: &Value) -> Option<Option<String>> {
    match value {
        Value::Null => Some(None),
        value => value.as_str().map(|id| Some(id.to_owned())),
    }
}

fn number_or_null(value: &Value) -> Option<Option<u64>> {
    match value {
        Value::Null => Some(None),
        value => value.as_u64().map(Some),
    }
}

/// Returns the code of the library's error in the form that OpenAI's clients understand, if the data is such an error.
fn openai(said: &Map<String, Value>) -> Option<&str> {
    let error = said.get("error")?;
    if error.get("type")? != "stream_error" {
        return None;
    }
    error.get("code")?.as_str()
}

/// Reads from the terminal event how its stream ended. `state` is the state by the rules for terminal events. It counts if
/// the event itself does not name a state.
pub(super) fn ended(message: Message, state: Option<StreamState>) -> Ended {
    let said: Option<Map<String, Value>> = serde_json::from_str(&message.data).ok();
    let code = said.as_ref().and_then(openai);
    let own_state = match &*message.name {
        "message" => payload_type(&message.data).and_then(|kind| state_named(&kind)),
        name => state_named(name),
    };
    let reason = match code {
        Some(code) => Some(code.to_owned()),
        None => said
            .as_ref()
            .and_then(|said| Some(said.get("reason")?.as_str()?.to_owned()))
            .filter(|_| own_state.is_some()),
    };
    let state = own_state.or(state).or(code.map(state_of_code));
    Ended { event: Some(message), state, reason }
}

fn state_named(name: &str) -> Option<StreamState> {
    use StreamState::{Cancelled, Completed, Expired, Failed, Orphaned};
    [Completed, Failed, Cancelled, Orphaned, Expired].into_iter().find(|state| state.as_str() == name)
}

/// Returns the state that an error code of the voice `OpenAi` stands for. The code is the reason of the ending, or the
/// name of the state if there is no reason.
fn state_of_code(code: &str) -> StreamState {
    let cancelled = [reason::STOPPED, reason::REPLACED, reason::DISCONNECTED];
    if let Some(state) = state_named(code) {
        state
    } else if cancelled.contains(&code.into()) {
        StreamState::Cancelled
    } else if code == reason::NODE_LOST {
        StreamState::Orphaned
    } else if code == reason::LIFETIME {
        StreamState::Expired
    } else {
        StreamState::Failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(name: &str, data: &str) -> Message {
        Message { name: name.to_owned(), data: data.to_owned(), last_event_id: String::new(), retry: None }
    }

    fn gap(after: Option<&str>, resumes_at: Option<&str>, missed: Option<u64>) -> Option<Word> {
        let owned = |id: Option<&str>| id.map(str::to_owned);
        Some(Word::Gap(Gap { after: owned(after), resumes_at: owned(resumes_at), missed }))
    }

    #[test]
    fn words_are_known_in_each_voice() {
        let restart = Some(Word::Restart(Restart { epoch: Some(17) }));
        for (name, data, expected) in [
            ("connected", r#"{"streamId":"a"}"#, Some(Word::Connected)),
            ("gap", r#"{"after":"e1-2","resumesAt":"e1-6","missed":3}"#, gap(Some("e1-2"), Some("e1-6"), Some(3))),
            ("gap", r#"{"after":null,"resumesAt":null,"missed":null}"#, gap(None, None, None)),
            ("restart", r#"{"epoch":"17"}"#, restart.clone()),
            ("message", r#"{"streamId":"a","type":"connected"}"#, Some(Word::Connected)),
            (
                "message",
                r#"{"after":null,"missed":1,"resumesAt":"e1-2","type":"gap"}"#,
                gap(None, Some("e1-2"), Some(1)),
            ),
            ("message", r#"{"epoch":"17","type":"restart"}"#, restart),
            (
                "message",
                r#"{"error":{"message":"m","type":"stream_error","code":"shutdown"}}"#,
                Some(Word::Breaks("shutdown".to_owned())),
            ),
        ] {
            assert_eq!(word(&message(name, data)), expected, "{name} {data}");
        }
    }

    #[test]
    fn a_hosts_own_events_are_no_words() {
        for (name, data) in [
            ("gap", r#"{"after":"e1-2","resumesAt":"e1-6"}"#),
            ("gap", r#"{"after":"e1-2","resumesAt":"e1-6","missed":3,"more":1}"#),
            ("gap", r#"{"after":"e1-2","resumesAt":"e1-6","missed":-3}"#),
            ("gap", r#"{"after":5,"resumesAt":"e1-6","missed":3}"#),
            ("gap", "mind the gap"),
            ("connected", "{}"),
            ("connected", r#"{"streamId":7}"#),
            ("restart", r#"{"epoch":17}"#),
            ("restart", r#"{"epoch":"soon"}"#),
            ("token", r#"{"streamId":"a","type":"connected"}"#),
            ("message", r#"{"type":5,"streamId":"a"}"#),
            ("message", r#"{"type":"token","text":"x"}"#),
            ("message", r#"{"error":{"message":"m","type":"server_error","code":"gap"}}"#),
            ("message", r#"{"error":"gap"}"#),
            ("message", r#"["connected"]"#),
            ("message", "{"),
            ("message", ""),
        ] {
            assert_eq!(word(&message(name, data)), None, "{name} {data}");
        }
        let long = format!(r#"{{"streamId":"{}"}}"#, "a".repeat(LONGEST_WORD));
        assert_eq!(word(&message("connected", &long)), None);
        assert_eq!(word(&message("message", &"[".repeat(LONGEST_WORD))), None);
        assert_eq!(word(&message("message", &r#"{"a":"#.repeat(200))), None);
    }

    #[test]
    fn endings_say_their_state_and_reason() {
        use StreamState::{Cancelled, Completed, Expired, Failed, Orphaned};
        for (name, data, by_rules, expected, reason) in [
            ("completed", r#"{"type":"completed","data":{"tokens":5}}"#, None, Some(Completed), None),
            ("completed", r#"{"reason":"eof"}"#, None, Some(Completed), Some("eof")),
            ("orphaned", r#"{"reason":"node_lost"}"#, None, Some(Orphaned), Some("node_lost")),
            ("message", r#"{"reason":"stopped","type":"cancelled"}"#, None, Some(Cancelled), Some("stopped")),
            ("message", r#"{"type":"failed","data":{}}"#, None, Some(Failed), None),
            ("message", "[DONE]", Some(Completed), Some(Completed), None),
            ("message", "[DONE]", None, None, None),
            ("job.done", r#"{"reason":"mine"}"#, Some(Completed), Some(Completed), None),
            (
                "message",
                r#"{"error":{"type":"stream_error","code":"node_lost"}}"#,
                None,
                Some(Orphaned),
                Some("node_lost"),
            ),
            (
                "message",
                r#"{"error":{"type":"stream_error","code":"stopped"}}"#,
                None,
                Some(Cancelled),
                Some("stopped"),
            ),
            (
                "message",
                r#"{"error":{"type":"stream_error","code":"lifetime"}}"#,
                None,
                Some(Expired),
                Some("lifetime"),
            ),
            ("message", r#"{"error":{"type":"stream_error","code":"expired"}}"#, None, Some(Expired), Some("expired")),
            ("message", r#"{"error":{"type":"stream_error","code":"panic"}}"#, None, Some(Failed), Some("panic")),
        ] {
            let ended = ended(message(name, data), by_rules);
            assert_eq!((ended.state, ended.reason.as_deref()), (expected, reason), "{name} {data}");
        }
    }
}
