//! Tests of the event source against a scripted server, with paused time.

mod attempts;
mod owner;
mod reading;
mod requests;
mod script;

use script::{Answer, Part, Server};

use super::*;

/// Reads a source to its end, and returns its items as text.
async fn all(source: &mut EventSource) -> Vec<String> {
    let mut told = Vec::new();
    while let Some(update) = source.next().await {
        told.push(words(&update));
    }
    told
}

fn words(update: &Result<Update, GaveUp>) -> String {
    match update {
        Ok(Update::Connected(_)) => "connected".to_owned(),
        Ok(Update::Event(message)) => message.data.clone(),
        Ok(Update::Gap(_)) => "gap".to_owned(),
        Ok(Update::Restart(_)) => "restart".to_owned(),
        Ok(Update::Cut(cut)) => format!("cut: {}", cut.cause),
        Ok(Update::Ended(ended)) => format!("ended: {}", ended.event.as_ref().map_or("-", |event| &event.data)),
        Err(gave_up) => format!("gave up: {gave_up}"),
    }
}
