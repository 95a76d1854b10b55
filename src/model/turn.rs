//! Turns: the streams of a conversation, one after the other.

use crate::model::id::StreamId;

/// What happens to the last stream of a conversation, if it still runs when a new turn begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overlap {
    /// It is stopped (`cancelled`, reason [`replaced`](crate::reason::REPLACED)) once the new turn has started: once its
    /// handler has answered with an event stream. A turn that fails to begin leaves it alone. At the owner's limit of streams
    /// (`max_streams`) the new turn may be one over it until then.
    #[default]
    Replace,
    /// The new turn is refused with 409, and its handler does not run. `X-Stream-Id` names the stream that runs. One that is interrupted does
    /// not run: it ends once the new turn has started, and may be run again until then only if the new turn fails to begin. Where the store registers
    /// the turn but does not say whether one runs, the client is to come again. A store that answers nothing at all refuses
    /// nobody: [`OnUnavailable`](crate::OnUnavailable) says what is done then. If the store loses everything, a turn that begins before a running
    /// one has registered again replaces that.
    Refuse,
    /// It runs on. The conversation is the new turn's: a resume finds that one.
    Allow,
}

impl Overlap {
    /// The policy's name, as it stands in stores.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Replace => "replace",
            Self::Refuse => "refuse",
            Self::Allow => "allow",
        }
    }

    /// Whether a turn that has started stops those before it.
    pub(crate) fn stops(self) -> bool {
        self != Self::Allow
    }
}

/// The conversation that a stream is a turn of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The owner's name for the conversation: the rules are those of a stream's.
    pub conversation: StreamId,
    /// What the turn does to those before it.
    pub overlap: Overlap,
}

impl Turn {
    /// As it stands in stores.
    #[cfg(feature = "redis")]
    pub(crate) fn to_text(&self) -> String {
        format!("{} {}", self.overlap.as_str(), self.conversation)
    }

    /// Reads it back; `None` if it is none.
    #[cfg(feature = "redis")]
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (overlap, conversation) = text.split_once(' ')?;
        let known = [Overlap::Replace, Overlap::Refuse, Overlap::Allow];
        let overlap = known.into_iter().find(|known| known.as_str() == overlap)?;
        Some(Self { conversation: StreamId::new(conversation).ok()?, overlap })
    }
}

#[cfg(all(test, feature = "redis"))]
mod tests {
    use super::*;

    #[test]
    fn turns_are_read_back() {
        for overlap in [Overlap::Replace, Overlap::Refuse, Overlap::Allow] {
            let turn = Turn { conversation: StreamId::new("chat-7").expect("valid"), overlap };
            assert_eq!(Turn::parse(&turn.to_text()), Some(turn));
        }
        for bad in ["", "replace", "chat-7", "other chat-7", "replace a/b"] {
            assert_eq!(Turn::parse(bad), None, "{bad:?}");
        }
    }
}
