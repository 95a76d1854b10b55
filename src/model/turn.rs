//! Turns: the streams of a conversation, one after the other.

use crate::model::id::StreamId;

/// The policy for a conversation's running stream when a new turn begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overlap {
    /// Stops the running stream (`cancelled`, reason [`replaced`](crate::reason::REPLACED)) once the new turn's handler
    /// has answered with an event stream. A turn that fails to begin leaves the running stream alone. Until the running
    /// stream is stopped, the owner may have one stream more than `max_streams` allows.
    #[default]
    Replace,
    /// Refuses the new turn with 409, without running its handler. `X-Stream-Id` names the running stream.
    ///
    /// An interrupted stream does not count as running. It ends once the new turn has started, and can only be run
    /// again if the new turn fails to begin.
    ///
    /// If the store registers the turn but does not say whether a stream is running, the client is told to reconnect.
    /// If the store does not answer at all, no turn is refused: [`OnUnavailable`](crate::OnUnavailable) applies. If the
    /// store loses its data, a turn that begins before the running stream has registered again replaces that stream.
    Refuse,
    /// Lets the running stream continue. Resuming the conversation finds the new turn's stream.
    Allow,
}

impl Overlap {
    /// Returns the name under which stores keep the policy.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Replace => "replace",
            Self::Refuse => "refuse",
            Self::Allow => "allow",
        }
    }

    /// Whether a turn stops the turns before it once it has started.
    pub(crate) fn stops(self) -> bool {
        self != Self::Allow
    }
}

/// A stream's membership in a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The owner's name for the conversation, under the same rules as a stream's name.
    pub conversation: StreamId,
    /// The policy for the earlier turns that are still running.
    pub overlap: Overlap,
}

impl Turn {
    /// Writes the turn as text for a store.
    #[cfg(feature = "redis")]
    pub(crate) fn to_text(&self) -> String {
        format!("{} {}", self.overlap.as_str(), self.conversation)
    }

    /// Reads a turn from a store's text; `None` if the text is not a turn.
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
