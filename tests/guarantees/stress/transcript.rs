//! The transcript of one reader of one stream, judged event by event.
//!
//! An event's data is its number within its run, from 0; the terminal event says how many there were.

use resilient_sse::{EventId, wire::Message};

/// How much of the history is reported with a problem.
const HISTORY: usize = 14;

#[derive(Debug, Default)]
pub struct Transcript {
    at: Option<EventId>,
    gap: bool,
    restart: bool,
    pub gaps: u64,
    pub restarts: u64,
    pub events: u64,
    pub ended: bool,
    history: Vec<String>,
}

impl Transcript {
    /// The last id that arrived.
    pub fn cursor(&self) -> Option<String> {
        self.at.map(|at| at.to_string())
    }

    pub fn note(&mut self, what: impl Into<String>) {
        self.history.push(what.into());
    }

    /// A problem, with what led to it.
    pub fn problem(&self, what: impl AsRef<str>) -> String {
        let from = self.history.len().saturating_sub(HISTORY);
        format!("{}\n   {}", what.as_ref(), self.history[from..].join("\n   "))
    }

    /// Judges the next event.
    pub fn hears(&mut self, message: &Message) -> Result<(), String> {
        self.note(format!("{} {} {:.40}", message.name, message.last_event_id, message.data));
        self.judge(message).map_err(|what| self.problem(what))
    }

    fn judge(&mut self, message: &Message) -> Result<(), String> {
        match message.name.as_str() {
            "connected" => return Ok(()),
            "gap" => {
                (self.gap, self.gaps) = (true, self.gaps + 1);
                return Ok(());
            }
            "restart" => {
                (self.restart, self.restarts) = (true, self.restarts + 1);
                return Ok(());
            }
            _ => {}
        }
        let Ok(id) = message.last_event_id.parse::<EventId>() else { return Err("an event without an id".into()) };
        if self.at.is_some_and(|at| id <= at) {
            return Err("twice, or out of order".into());
        }
        if id.seq == 0 { self.terminal(id, message) } else { self.event(id, message) }?;
        self.events += 1;
        (self.at, self.gap, self.restart) = (Some(id), false, false);
        Ok(())
    }

    fn event(&self, id: EventId, message: &Message) -> Result<(), String> {
        if message.name != "message" || message.data != (id.seq - 1).to_string() {
            return Err("another event than was made under this id".into());
        }
        let before = match self.at {
            Some(at) if at.epoch == id.epoch => at.seq,
            Some(_) if !self.restart => return Err("another run without a restart".into()),
            Some(_) | None => 0,
        };
        if id.seq != before + 1 && !self.gap {
            return Err(format!("{} missing without a gap", id.seq - before - 1));
        }
        Ok(())
    }

    fn terminal(&mut self, id: EventId, message: &Message) -> Result<(), String> {
        self.ended = true;
        let same = self.at.is_none_or(|at| at.epoch == id.epoch - 1);
        if !same && !self.restart {
            return Err("the end of another run without a restart".into());
        }
        let Some(made) = message.data.strip_prefix("last ") else { return Ok(()) };
        let seen = self.at.filter(|_| same).map_or(0, |at| at.seq);
        if made != seen.to_string() && !self.gap {
            return Err(format!("the end after {seen} of {made} events without a gap"));
        }
        Ok(())
    }
}
