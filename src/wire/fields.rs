//! What an event's payload says: its type, its JSON, and a completion's two fields.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;

use super::Framing;
use crate::stream::Ending;

/// How an event's block reads: the same in recovery, in the store's completions and in the clients.
pub(crate) struct EventFields {
    /// The event's name, else its payload's `type`, else `message`.
    pub(crate) kind: String,
    pub(crate) data: String,
    pub(crate) json: Option<Value>,
}

impl EventFields {
    pub(crate) fn of(framing: &dyn Framing, block: &[u8]) -> Self {
        let event = framing.view(block);
        let named = event.name.map(Cow::into_owned);
        let data = event.data.into_owned();
        let kind = named.or_else(|| payload_type(&data)).unwrap_or_else(|| "message".to_owned());
        let json = serde_json::from_str(&data).ok();
        Self { kind, data, json }
    }
}

/// A completion's `terminalEventType` and `terminalEventData`, as recovery answers them and a store may keep them.
///
/// A payload that is a `{type, data}` envelope and nothing more is unwrapped; any other is given whole.
pub(crate) fn terminal(framing: &dyn Framing, ending: &Ending) -> (String, Value) {
    let Some(block) = &ending.event else {
        let reason = ending.reason.as_deref();
        return (ending.state.to_string(), serde_json::json!({ "reason": reason }));
    };
    let EventFields { kind, data, json } = EventFields::of(framing, block);
    let data = match json {
        Some(Value::Object(mut envelope)) if is_envelope(&envelope) => envelope.remove("data").unwrap_or_default(),
        Some(json) => json,
        None => Value::String(data),
    };
    (kind, data)
}

fn is_envelope(object: &serde_json::Map<String, Value>) -> bool {
    object.len() == 2 && object.contains_key("data") && object.get("type").is_some_and(Value::is_string)
}

/// The `type` of a JSON object.
pub(crate) fn payload_type(data: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Typed<'a> {
        #[serde(borrow, rename = "type")]
        kind: Option<Cow<'a, str>>,
    }
    // An array would be read as the fields in their order.
    if !data.trim_start().starts_with('{') {
        return None;
    }
    serde_json::from_str::<Typed<'_>>(data).ok()?.kind.map(Cow::into_owned)
}
